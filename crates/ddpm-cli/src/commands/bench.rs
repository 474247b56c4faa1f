//! `ddpm bench`.

use anyhow::Result;

use crate::{args::BenchArgs, failure::Failure};

pub(super) fn run(_args: &BenchArgs) -> Result<()> {
    Err(Failure::not_built("ddpm bench").into())
}
