//! `cargo xtask torture`: kills, truncations and bit flips in full.

use crate::{barriers, repository};
use anyhow::{Context, Result, ensure};

/// What `DDPM_TORTURE` must be for the tests to run their sets whole instead of a seeded sample.
const FULL: (&str, &str) = ("DDPM_TORTURE", "full");

/// What to torture.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// `barriers`: take every barrier of the CUDA kernels away in turn; else only the tests whose names contain this; further arguments go to the test program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    tests: Vec<String>,
}

/// Runs the tests of `ddpm-tests` with their torture sets whole.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.tests == ["barriers"] {
        return barriers::run();
    }
    let mut command = repository::cargo();
    command.args(["test", "-p", "ddpm-tests", "--release", "--"]).args(&arguments.tests).env(FULL.0, FULL.1);
    let shown: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    println!("{}={} cargo {}", FULL.0, FULL.1, shown.join(" "));
    println!("every kill, truncation and bit flip instead of a sample of them: this takes a while");
    let status = command.status().context("running cargo test")?;
    ensure!(status.success(), "torture found something: see above (cargo test ended with {status})");
    Ok(())
}
