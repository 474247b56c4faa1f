//! `ddpm completions`: a script for a shell.

use std::io::Write;

use anyhow::Result;
use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};

pub(super) fn run(args: &CompletionsArgs) -> Result<()> {
    // Written to memory first: the generator panics where its writer fails, and a reader may go away.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ddpm", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(())
}
