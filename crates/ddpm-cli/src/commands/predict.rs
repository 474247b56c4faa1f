//! `ddpm predict`.

use anyhow::Result;

use crate::{args::PredictArgs, failure::Failure};

pub(super) fn run(_args: &PredictArgs) -> Result<()> {
    Err(Failure::not_built("ddpm predict").into())
}
