//! `ddpm plot`: the curves of runs over each other.

use std::{collections::BTreeSet, path::Path};

use anyhow::Result;
use ddpm_train::run::RunDir;
use serde_json::json;

use super::curves::{Curves, is_noisy, scale, smoothed, title};
use crate::{
    args::PlotArgs,
    failure::{Explain, Failure},
    output::Output,
    picture::plot::{COLOURS, Chart, Panel, Series, Style},
};

/// What is drawn where nobody says what.
const USUAL: [&str; 4] = ["loss", "heldout_loss_ema", "lr", "grad_norm"];

pub(super) fn run(args: &PlotArgs) -> Result<()> {
    let output = Output::new(args.talk);
    let extension = args.out.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    if !matches!(extension.as_deref(), Some("svg" | "png")) {
        let failure = Failure::usage("curves are written as .svg or .png").place(args.out.display());
        return Err(failure.next("name a file with one of these endings").into());
    }
    let mut runs = Vec::new();
    for path in &args.runs {
        let run = RunDir::open(path).at(path.display())?;
        let curves = Curves::read(&run).next("a run has curves once it has made its first step")?;
        runs.push((name(path, &args.runs), curves));
    }
    let known: BTreeSet<&str> = runs.iter().flat_map(|(_, curves)| curves.keys()).collect();
    let keys: Vec<&str> = if args.curves.is_empty() {
        USUAL.into_iter().filter(|key| known.contains(key)).collect()
    } else {
        args.curves.iter().map(String::as_str).collect()
    };
    if let Some(unknown) = keys.iter().find(|key| !known.contains(*key)) {
        let known = known.iter().copied().collect::<Vec<_>>().join(", ");
        return Err(Failure::usage(format!("no run has a curve `{unknown}`"))
            .place("--curves")
            .next(format!("there are: {known}"))
            .into());
    }
    let panels: Vec<Panel> = keys.iter().map(|key| panel(key, &runs)).collect();
    let title = if let [(only, _)] = runs.as_slice() { only.as_str() } else { "" };
    let columns = if panels.len() > 1 { 2 } else { 1 };
    let size = if panels.len() > 1 { (640.0, 360.0) } else { (960.0, 504.0) };
    let chart = Chart { title, x_name: "step", panels: &panels, columns, panel: size };
    chart.write(&args.out).at(args.out.display())?;
    output.result(&args.out.display().to_string())?;
    let names: Vec<&String> = runs.iter().map(|(name, _)| name).collect();
    output.json(&json!({ "out": args.out, "runs": args.runs, "names": names, "curves": keys }))?;
    Ok(())
}

/// One key's curves of all runs. What is noisy is smoothed; of a single run the noise stays behind it.
fn panel(key: &str, runs: &[(String, Curves)]) -> Panel {
    let mut series = Vec::new();
    for (i, (name, curves)) in runs.iter().enumerate() {
        let points = curves.get(key);
        let alone = runs.len() == 1;
        let name = if alone { String::new() } else { name.clone() };
        let one = |points: &[(f64, f64)], style| Series {
            name: name.clone(),
            points: points.to_vec(),
            colour: COLOURS[i % COLOURS.len()],
            style,
        };
        // More runs than colours: the next round is dashed.
        let line = if (i / COLOURS.len()).is_multiple_of(2) { Style::Line } else { Style::Dashes };
        if is_noisy(key) {
            if alone {
                series.push(one(points, Style::Faint));
            }
            series.push(one(&smoothed(points), line));
        } else {
            series.push(one(points, if points.len() <= 40 && line == Style::Line { Style::Dots } else { line }));
        }
    }
    let smoothed = if is_noisy(key) { " (smoothed)" } else { "" };
    Panel { name: format!("{}{smoothed}", title(key)), scale: scale(key), x_name: None, series }
}

/// A run's name in the legend: its folder's, or its whole path where another run has the same.
fn name(path: &Path, all: &[std::path::PathBuf]) -> String {
    let folder = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    match folder(path) {
        Some(name) if all.iter().filter(|other| folder(other).as_ref() == Some(&name)).count() == 1 => name,
        _ => path.display().to_string(),
    }
}
