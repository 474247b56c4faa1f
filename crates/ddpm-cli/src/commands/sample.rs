//! `ddpm sample`.

use anyhow::Result;

use crate::{args::SampleArgs, failure::Failure};

pub(super) fn run(_args: &SampleArgs) -> Result<()> {
    Err(Failure::not_built("ddpm sample").into())
}
