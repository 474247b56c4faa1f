//! `ddpm eval nll --ode`: bits per dimension by the probability-flow ODE.

use anyhow::Result;
use ddpm_train::eval::ode::{ContinuousSchedule, OdeBits, ode_bits};
use serde_json::json;

use super::{Machinery, Studio, denoiser, nll::COUNT, reference};
use crate::{args::EvalArgs, failure::Failure, output::Output, progress::Progress};

/// Steps of the bar.
const BAR: f64 = 1000.0;

pub(super) fn run<B: Machinery>(args: &EvalArgs, output: Output, studio: &Studio<B>) -> Result<()> {
    let (data, part) = reference(args, studio)?;
    let n = part.len().min(args.n.map_or(COUNT, |n| n as usize));
    let image = studio.image()?;
    let labels = studio.labels_of(&data, part.start, n)?;
    let (batch, len) = (studio.batch(image), data.image_len());
    let (of, schedule) = (denoiser(studio), ContinuousSchedule::new(&studio.schedule));
    let mut progress = Progress::new(output, "measuring", 0, n.div_ceil(batch) as u64 * BAR as u64);
    let mut all: Vec<OdeBits> = Vec::with_capacity(n);
    for (index, first) in (0..n).step_by(batch).enumerate() {
        let count = batch.min(n - first);
        let mut levels = vec![0; count * len];
        for (i, out) in levels.chunks_exact_mut(len).enumerate() {
            data.image(part.start + first + i, out)?;
        }
        let labels = labels.as_deref().map(|labels| &labels[first..first + count]);
        all.extend(ode_bits(
            &schedule,
            &levels,
            len,
            studio.seed(),
            first as u64,
            |queries| Ok::<_, anyhow::Error>(of.answer(queries, image, labels)?),
            |share| {
                progress.at(((index as f64 + share) * BAR) as u64, || format!("{n} pictures by the ODE"));
                Ok(())
            },
        )?);
    }
    progress.finish();

    let mean = |of: fn(&OdeBits) -> f64| all.iter().map(of).sum::<f64>() / n as f64;
    let bits = mean(|image| image.bits_per_dim);
    if !bits.is_finite() {
        return Err(Failure::new("the likelihood is infinite or not a number: the model's output is").into());
    }
    let squares: f64 = all.iter().map(|image| (image.bits_per_dim - bits).powi(2)).sum();
    let std_error = (squares / (n as f64 - 1.0) / n as f64).sqrt();
    let evaluations = mean(|image| image.evaluations as f64);
    output.result(&format!(
        "{bits:.4} bits/dim by the probability-flow ODE, standard error {std_error:.4}, {n} pictures, {evaluations:.1} evaluations each"
    ))?;
    output.json(&json!({
        "bits_per_dim": bits, "std_error": std_error, "evaluations": evaluations, "n": n, "ode": true,
        "model": studio.model.hash, "data": data.hash(),
    }))?;
    Ok(())
}
