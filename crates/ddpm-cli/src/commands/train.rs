//! `ddpm train`.

use anyhow::Result;

use crate::{args::TrainArgs, failure::Failure};

pub(super) fn run(_args: &TrainArgs) -> Result<()> {
    Err(Failure::not_built("ddpm train").into())
}
