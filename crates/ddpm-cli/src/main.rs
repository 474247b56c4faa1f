//! The `ddpm` program: trains denoising diffusion models and makes pictures with them.
//!
//! `args` is what was typed, `commands` does it, `failure` says what went wrong. This file only joins them.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod failure;
mod output;
mod picture;
mod progress;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    failure::replace_panic_message();
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, with code 0. A reader that went away is no failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::USAGE));
        }
    };
    let name = cli.command.name();
    match std::panic::catch_unwind(|| commands::run(cli.command)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => ExitCode::from(failure::report(&error, name)),
        // The message has been printed by then.
        Err(_) => ExitCode::from(failure::FAILED),
    }
}
