//! `cargo xtask digits-classifier`: the small network on whose features digits are scored.

use crate::repository;
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;

/// The file that the program embeds.
const FILE: &str = "data/digits-classifier.safetensors";

/// Where it goes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Another file than the one that the program embeds
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Trains it anew: the product's own code does, which this chore does not depend on.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let out = arguments.out.clone().unwrap_or_else(|| repository::root().join(FILE));
    let mut command = repository::cargo();
    command.args(["run", "-p", "ddpm-tests", "--example", "digits_classifier", "--"]).arg(&out);
    let status = command.status().context("running cargo run")?;
    ensure!(status.success(), "no classifier was written: see above ({status})");
    println!("{}", out.display());
    Ok(())
}
