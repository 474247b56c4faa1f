//! `ddpm eval`: how good a model is.

pub(super) mod judge;
pub(super) mod nll;
mod ode;
mod quality;

use std::ops::Range;

use anyhow::Result;
use ddpm_train::{data::DataSet, eval::Denoiser};

use super::{
    machine::{Machinery, on_device},
    model_data,
    studio::{Ready, Studio},
};
use crate::{
    args::{EvalArgs, Measure, Split},
    failure::Failure,
    output::Output,
};

pub(super) fn run(args: &EvalArgs) -> Result<()> {
    let output = Output::new(args.talk);
    refuse_what_does_not_fit(args)?;
    let (ready, device) = Ready::open(&args.model, &args.how, &args.machine, output)?;
    on_device!(device, device => measure(args, output, &ready.on(device)?))
}

/// All that follows once the device is known.
fn measure<B: Machinery>(args: &EvalArgs, output: Output, studio: &Studio<B>) -> Result<()> {
    match args.measure {
        Measure::Nll if args.ode => ode::run(args, output, studio),
        Measure::Nll => nll::run(args, output, studio),
        Measure::Fid | Measure::Kid | Measure::Is | Measure::Pr | Measure::Sfid => quality::run(args, output, studio),
    }
}

/// Flags of one measure that were given to another.
fn refuse_what_does_not_fit(args: &EvalArgs) -> Result<()> {
    let measure = args.measure;
    let of_nll = measure == Measure::Nll;
    let with_statistics = matches!(measure, Measure::Fid | Measure::Sfid);
    let rules = [
        ("--ode", args.ode, of_nll, "nll"),
        ("--curve", args.curve.is_some(), of_nll, "nll"),
        ("--features", args.features.is_some(), !of_nll, "fid, kid, is, pr and sfid"),
        ("--reference", args.reference.is_some(), with_statistics, "fid and sfid"),
        ("--write-reference", args.write_reference.is_some(), with_statistics, "fid and sfid"),
    ];
    match rules.into_iter().find(|(_, given, fits, _)| *given && !fits) {
        Some((flag, .., of)) => Err(Failure::usage(format!("{flag} is for eval {of}")).next("leave it out").into()),
        None => Ok(()),
    }
}

/// The network with what its output means.
fn denoiser<B: Machinery>(studio: &Studio<B>) -> Denoiser<'_, B> {
    let options = &studio.options;
    Denoiser {
        backend: &studio.device,
        unet: &studio.model.unet,
        parameters: studio.parameters(),
        schedule: &studio.schedule,
        prediction: options.prediction,
        variance: options.variance,
        variance_blend: options.variance_blend,
        clip: options.clip,
    }
}

/// The data, and which of its pictures count.
fn reference<B: Machinery>(args: &EvalArgs, studio: &Studio<B>) -> Result<(DataSet, Range<usize>)> {
    let data = model_data::open(&args.model, &studio.model, studio.image()?, args.data.as_deref())?;
    let split = args.split.unwrap_or(if args.data.is_some() { Split::All } else { Split::Heldout });
    let part = match split {
        Split::All => 0..data.count(),
        Split::Train => data.train_indices(),
        Split::Heldout => data.heldout_indices(),
    };
    if part.is_empty() {
        return Err(Failure::usage("nothing of this data is held out")
            .place(data.path().display())
            .next("--split train or --split all, or --data PATH")
            .into());
    }
    Ok((data, part))
}
