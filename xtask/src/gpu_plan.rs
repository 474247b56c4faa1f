//! `cargo xtask gpu-plan`: the launches of a training step on a GPU, and what they cost at best, without one.

use crate::repository;
use anyhow::{Context, Result, ensure};

/// What to count.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The preset whose network is trained
    #[arg(long, default_value = "cifar10")]
    preset: String,
    /// Images of a step
    #[arg(long, default_value_t = 128)]
    batch: u32,
    /// How products are computed: strict, f32 or bf16
    #[arg(long, default_value = "f32")]
    precision: String,
}

/// Prints the plan.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    const TEST: &str = "the_plan_that_was_asked_for";
    let mut command = repository::cargo();
    command.args(["test", "-q", "-p", "ddpm-tests", "--test", "gpu_plan", "--", "--exact", TEST, "--nocapture"]);
    command.env("DDPM_GPU_PLAN", {
        let Arguments { preset, batch, precision } = arguments;
        format!("{preset} {batch} {precision}")
    });
    let output = command.output().context("running cargo test")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let is_row = |line: &&str| !line.is_empty() && !line.starts_with("running") && !line.starts_with("test result");
    said.lines().filter(is_row).filter(|line| *line != ".").for_each(|line| println!("{line}"));
    Ok(())
}
