//! `ddpm info`.

use anyhow::Result;

use crate::{args::InfoArgs, failure::Failure};

pub(super) fn run(_args: &InfoArgs) -> Result<()> {
    Err(Failure::not_built("ddpm info").into())
}
