//! Chores of the repository: `cargo xtask COMMAND`.
//!
//! Builds even when the product does not: it depends on none of its crates.

#![deny(unsafe_code)] // but for `kernels/nvrtc.rs`, which calls a C library
#![allow(clippy::print_stdout, clippy::print_stderr)] // a program for people

mod barriers;
mod digits;
mod gpu_plan;
mod kernels;
mod repository;
mod tidy;
mod torture;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Chores of the repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Compile kernels/*.cu to the PTX that is committed beside them
    BuildKernels(kernels::Arguments),
    /// Train the classifier of digits that the program embeds, and say how many it knows
    DigitsClassifier(digits::Arguments),
    /// Print the launches of a training step on a GPU: blocks, occupancy, FLOPs, bytes and the least time, without one
    GpuPlan(gpu_plan::Arguments),
    /// Run the tests that span crates with their torture sets whole, in release mode
    Torture(torture::Arguments),
    /// Check what no compiler checks: sizes of files, forbidden words, licences, the kernels' manifest
    Tidy,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::BuildKernels(arguments) => kernels::run(&arguments),
        Chore::DigitsClassifier(arguments) => digits::run(&arguments),
        Chore::GpuPlan(arguments) => gpu_plan::run(&arguments),
        Chore::Torture(arguments) => torture::run(&arguments),
        Chore::Tidy => tidy::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
