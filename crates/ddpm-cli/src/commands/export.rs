//! `ddpm export`.

use anyhow::Result;

use crate::{args::ExportArgs, failure::Failure};

pub(super) fn run(_args: &ExportArgs) -> Result<()> {
    Err(Failure::not_built("ddpm export").into())
}
