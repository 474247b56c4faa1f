//! `ddpm eval nll`: bits per dimension, term by term, and the rate-distortion curve.

use std::{fmt::Write as _, io::Write as _, ops::Range, path::Path};

use anyhow::{Context, Result};
use ddpm_tensor::Tensor;
use ddpm_train::{
    data::DataSet,
    eval::{self, Likelihood, Point},
};
use serde_json::json;

use super::{Machinery, Studio, denoiser, reference};
use crate::{
    args::EvalArgs,
    failure::{Explain, Failure},
    output::Output,
    picture::{
        plot::{COLOURS, Chart, Panel, Scale, Series, Style},
        png,
    },
    progress::Progress,
};

/// Pictures where nobody says how many.
pub(super) const COUNT: usize = 100;
/// Rows of the table of the curve.
const ROWS: usize = 10;

pub(super) fn run<B: Machinery>(args: &EvalArgs, output: Output, studio: &Studio<B>) -> Result<()> {
    let curve = args.curve.as_deref().map(form).transpose()?;
    let (data, part) = reference(args, studio)?;
    let n = part.len().min(args.n.map_or(COUNT, |n| n as usize));
    let found = measure(output, studio, &data, part.start..part.start + n, &|| Ok(()))?;

    let (terms, curve_points) = (&found.terms, found.curve());
    output.result(&format!(
        "{:.4} bits/dim (tanh form of the decoder; {:.4} exact), standard error {:.4}, {n} pictures",
        terms.total(),
        terms.total_exact(),
        found.std_error
    ))?;
    output.result(&format!(
        "prior {:.6}  kl {:.4}  decoder {:.4} ({:.4} exact)  mse of eps {:.5}",
        terms.prior,
        terms.kl_sum(),
        terms.decoder,
        terms.decoder_exact,
        found.mse()
    ))?;
    output.result("    t   rate bits/dim   distortion rmse (0..255)")?;
    for point in table(&curve_points) {
        output.result(&format!("{:5}   {:13.4}   {:24.3}", point.t, point.rate, point.rmse))?;
    }
    if let (Some(form), Some(path)) = (curve, &args.curve) {
        match form {
            Form::Csv => write_text(path, &csv(&found, &curve_points))?,
            Form::Picture => {
                let points = spaced(&curve_points, 800).map(|point| (point.rate, point.rmse)).collect();
                let name = "distortion: rmse of the predicted picture, 0..255".to_owned();
                let series = Series { name, points, colour: COLOURS[0], style: Style::Line };
                let panel = Panel { name: String::new(), scale: Scale::Log, x_name: None, series: vec![series] };
                let x_name = "rate: bits per dimension received";
                let chart = Chart { title: "", x_name, panels: &[panel], columns: 1, panel: (960.0, 504.0) };
                chart.write(path).at(path.display())?;
            }
        }
        output.result(&path.display().to_string())?;
    }
    output.json(&json!({
        "bits_per_dim": terms.total(), "bits_per_dim_exact": terms.total_exact(), "std_error": found.std_error,
        "prior": terms.prior, "kl": terms.kl_sum(), "decoder": terms.decoder, "decoder_exact": terms.decoder_exact,
        "mse": found.mse(), "n": n, "rate": curve_points.last().map(|p| p.rate), "rmse": curve_points.last().map(|p| p.rmse),
        "curve": args.curve, "model": studio.model.hash, "data": data.hash(),
    }))?;
    Ok(())
}

/// The likelihood of some pictures of the data. `watch` hears every time step and may end it.
pub(in crate::commands) fn measure<B: Machinery>(
    output: Output,
    studio: &Studio<B>,
    data: &DataSet,
    part: Range<usize>,
    watch: &dyn Fn() -> Result<()>,
) -> Result<Likelihood> {
    let (first, n) = (part.start, part.len());
    let image = studio.image()?;
    let labels = studio.labels_of(data, first, n)?;
    let batch = studio.batch(image);
    let of = denoiser(studio);
    let total = studio.schedule.time_steps();
    let mut progress = Progress::new(output, "measuring", 0, (n.div_ceil(batch) * total) as u64);
    let mut done = 0;
    let mut all = Vec::with_capacity(n);
    for start in (0..n).step_by(batch) {
        let count = batch.min(n - start);
        let x_0 = pictures(studio, data, first + start, count)?;
        let labels = labels.as_deref().map(|labels| &labels[start..start + count]);
        all.extend(eval::terms(&of, &x_0, labels, studio.seed(), start as u64, || {
            done += 1;
            progress.at(done, || format!("{n} pictures at {total} time steps"));
            watch()
        })?);
    }
    progress.finish();
    let found = Likelihood::of(&all).context("there are no pictures")?;
    if found.terms.total().is_finite() {
        return Ok(found);
    }
    Err(Failure::new("the bound is infinite or not a number: the model's output is").into())
}

/// `count` pictures of the data, `[N, H, W, C]`.
fn pictures<B: Machinery>(studio: &Studio<B>, data: &DataSet, first: usize, count: usize) -> Result<Tensor<B>> {
    let [height, width, channels] = studio.image()?;
    let mut values = vec![0.0; count * data.image_len()];
    for (i, out) in values.chunks_exact_mut(data.image_len()).enumerate() {
        data.image_f32(first + i, out)?;
    }
    Ok(Tensor::from_slice(&studio.device, [count, height, width, channels], &values)?)
}

/// Some points of the curve, evenly over the time steps, with the first and the last.
fn table(points: &[Point]) -> impl Iterator<Item = &Point> {
    let last = points.len() - 1;
    let rows = ROWS.min(points.len());
    (0..rows).map(move |row| &points[last * row / (rows - 1).max(1)])
}

/// What a curve's file holds.
#[derive(Clone, Copy)]
enum Form {
    Csv,
    Picture,
}

/// By the name's ending.
fn form(path: &Path) -> Result<Form> {
    match path.extension().and_then(|end| end.to_str()) {
        Some("csv") => Ok(Form::Csv),
        Some("png" | "svg") => Ok(Form::Picture),
        _ => Err(Failure::usage("a curve is a .csv, a .png or an .svg")
            .place(path.display())
            .next("--curve curve.csv")
            .into()),
    }
}

/// At most so many of a curve's points, equally many steps apart and with the last: charts make means of more, which hide where
/// a curve ends.
pub(in crate::commands) fn spaced<T>(all: &[T], most: usize) -> impl Iterator<Item = &T> {
    let each = all.len().div_ceil(most).max(1);
    all.iter().enumerate().filter(move |(i, _)| (all.len() - 1 - i).is_multiple_of(each)).map(|(_, point)| point)
}

/// Writes a text, whole or not at all.
pub(in crate::commands) fn write_text(path: &Path, text: &str) -> Result<()> {
    png::appear(path, |file| Ok(file.write_all(text.as_bytes())?)).at(path.display())
}

/// The curve with what it is made of, a line for each time step.
pub(in crate::commands) fn csv(found: &Likelihood, points: &[Point]) -> String {
    let mut text = "t,rate,rmse,kl,eps_mse\n".to_owned();
    for point in points {
        let (kl, mse) = (found.terms.kl[point.t], found.terms.eps_mse[point.t]);
        // writing to a string does not fail
        let _ = writeln!(text, "{},{:.9},{:.9},{kl:.9e},{mse:.9e}", point.t, point.rate, point.rmse);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::spaced;

    #[test]
    fn few_points_keep_the_last() {
        let all: Vec<usize> = (0..1000).collect();
        for most in [1, 7, 250, 999, 1000, 2000] {
            let few: Vec<_> = spaced(&all, most).copied().collect();
            assert!(few.len() <= most && few.last() == Some(&999), "{most}: {few:?}");
        }
        assert_eq!(spaced(&all, 2000).count(), 1000);
        assert_eq!(spaced::<usize>(&[], 5).count(), 0);
    }
}
