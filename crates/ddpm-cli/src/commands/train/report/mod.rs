//! `report.html`: a run on one page, which needs no network and no server.

mod page;
mod pictures;

use std::{io::Write, path::Path};

use anyhow::Result;
use ddpm_train::{checkpoint::Checkpoint, data::DataSet, presets, run::RunDir, settings::Settings};

use self::page::Page;
use super::outputs::newest_checkpoint;
use crate::{
    commands::curves::{Curves, is_noisy, scale, smoothed, title},
    failure::Explain,
    picture::{
        plot::{COLOURS, Chart, Panel, Series, Style},
        png,
    },
    progress::{duration, thousands},
};

/// The file in a run's folder.
pub(super) const FILE: &str = "report.html";

/// What does not stand in the run's folder.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Device, threads, precision: a phrase.
    device: String,
    /// The data in words, and their hash.
    data: String,
    data_hash: String,
    /// Parameters of the network.
    parameters: u64,
}

impl Facts {
    pub(super) fn new(device: String, data: &DataSet, parameters: u64) -> Self {
        let (height, width) = data.size();
        let classes = data.classes().map(|classes| format!(" in {} classes", classes.len())).unwrap_or_default();
        let text = format!(
            "{}: {} pictures of {height}x{width}x{}{classes}, {} of them held out",
            data.path().display(),
            thousands(data.count() as u64),
            data.channels(),
            thousands(data.heldout_indices().len() as u64)
        );
        Self { device, data: text, data_hash: data.hash().to_owned(), parameters }
    }
}

/// Writes the page anew.
pub(super) fn write(run: &RunDir, settings: &Settings, facts: &Facts) -> Result<()> {
    let path = run.root().join(FILE);
    let html = page(run, settings, facts)?;
    png::appear(&path, |file| Ok(file.write_all(html.as_bytes())?)).at(path.display())
}

fn page(run: &RunDir, settings: &Settings, facts: &Facts) -> Result<String> {
    let curves = Curves::read(run)?;
    let done = curves.last_step().unwrap_or_default() as u64;
    let lines = [
        facts.data.clone(),
        format!("Network of {} parameters, trained on {}", thousands(facts.parameters), facts.device),
    ];
    let mut page = Page::new(&run.name(), &lines);
    page.numbers(&numbers(&curves, settings, done));
    if let Some(html) = pictures::html(run, done) {
        page.heading("Pictures");
        page.raw(&html);
    }
    page.heading("Curves");
    page.raw("<div class=\"wide\">\n");
    for panel in panels(&curves) {
        let chart = Chart { title: "", x_name: "step", panels: &[panel], columns: 1, panel: (560.0, 320.0) };
        page.raw(&format!("<div class=\"card chart\">\n{}</div>\n", chart.inline_svg()));
    }
    page.raw("</div>\n");
    let scores = scores(&curves);
    if !scores.is_empty() {
        page.heading("Scores");
        page.table(&["", "last", "at step", "range"], &scores);
    }
    changed_settings(&mut page, settings);
    page.heading("Made with");
    page.table(&[], &made_with(run, settings, facts, &curves));
    Ok(page.finish(&format!("More pictures: ddpm sample {} -n 64 --out grid.png", run.root().display())))
}

/// What one wants to know first.
fn numbers(curves: &Curves, settings: &Settings, done: u64) -> Vec<(&'static str, String)> {
    let total = settings.train.steps;
    let steps = if done < total { format!("{} of {}", thousands(done), thousands(total)) } else { thousands(done) };
    let mut numbers = vec![("steps", steps)];
    numbers.extend(curves.last_loss().map(|(loss, _)| ("loss", format!("{loss:.4}"))));
    numbers.extend(curves.get("heldout_loss_ema").last().map(|(_, loss)| ("held-out loss", format!("{loss:.4}"))));
    numbers.push(("training time", duration(curves.seconds(settings))));
    numbers.extend(curves.median("images_per_s").map(|speed| ("images/s", format!("{speed:.0}"))));
    numbers
}

/// Keys of `metrics.jsonl` that belong to training itself; all others are scores.
const TRAINING: [&str; 7] =
    ["loss", "objective", "heldout_loss", "heldout_loss_ema", "lr", "grad_norm", "images_per_s"];

fn score_keys(curves: &Curves) -> impl Iterator<Item = &str> {
    curves.keys().filter(|key| !TRAINING.contains(key))
}

/// The loss with what is held out, what steers it, and every score.
fn panels(curves: &Curves) -> Vec<Panel> {
    let series = |name: &str, points: &[(f64, f64)], colour: usize, style| Series {
        name: name.to_owned(),
        points: points.to_vec(),
        colour: COLOURS[colour],
        style,
    };
    let loss = curves.get("loss");
    let mut losses =
        vec![series("loss", loss, 0, Style::Faint), series("loss (mean)", &smoothed(loss), 0, Style::Line)];
    for (key, name, colour) in [("heldout_loss_ema", "held out, ema", 1), ("heldout_loss", "held out, raw", 2)] {
        let points = curves.get(key);
        if !points.is_empty() {
            losses.push(series(name, points, colour, Style::Dots));
        }
    }
    let mut panels = vec![Panel { name: String::new(), scale: scale("loss"), x_name: None, series: losses }];
    let others = ["objective", "lr", "grad_norm", "images_per_s"].into_iter();
    for key in others.chain(score_keys(curves)) {
        let points = curves.get(key);
        if points.is_empty() {
            continue;
        }
        let name = title(key);
        let all = if is_noisy(key) {
            let mean = series(&format!("{name} (mean)"), &smoothed(points), 0, Style::Line);
            vec![series(&name, points, 0, Style::Faint), mean]
        } else {
            vec![series(&name, points, 0, if points.len() <= 40 { Style::Dots } else { Style::Line })]
        };
        panels.push(Panel { name: String::new(), scale: scale(key), x_name: None, series: all });
    }
    panels
}

fn scores(curves: &Curves) -> Vec<Vec<String>> {
    let row = |key: &str| {
        let points = curves.get(key);
        let (step, last) = points.last()?;
        let lowest = points.iter().map(|(_, y)| *y).fold(f64::INFINITY, f64::min);
        let highest = points.iter().map(|(_, y)| *y).fold(f64::NEG_INFINITY, f64::max);
        let range = format!("lowest {lowest:.4}, highest {highest:.4}");
        Some(vec![title(key), format!("{last:.4}"), thousands(*step as u64), range])
    };
    score_keys(curves).filter_map(row).collect()
}

/// What differs from the preset, and all settings.
fn changed_settings(page: &mut Page, settings: &Settings) {
    page.heading("Settings");
    let preset = presets::find(&settings.train.name).ok();
    let base = preset.map_or_else(Settings::default, presets::Preset::settings);
    let of = preset.map_or_else(|| "the defaults".to_owned(), |preset| format!("the preset {}", preset.name));
    let rows: Vec<_> =
        base.changes(settings).into_iter().map(|change| vec![change.key, change.after, change.before]).collect();
    if rows.is_empty() {
        page.paragraph(&format!("All as in {of}."));
    } else {
        page.table(&["differs", "here", &of], &rows);
    }
    page.details("All settings (config.toml)", &settings.to_toml_commented());
}

/// Program, machine, time and hashes.
fn made_with(run: &RunDir, settings: &Settings, facts: &Facts, curves: &Curves) -> Vec<Vec<String>> {
    let mut rows: Vec<(&str, String)> = vec![
        ("program", concat!("ddpm ", env!("CARGO_PKG_VERSION")).to_owned()),
        ("device", facts.device.clone()),
        ("processor", processor()),
    ];
    rows.push(("time in steps", duration(curves.seconds(settings))));
    if let Some(step) = curves.last_step() {
        rows.push(("pictures seen", thousands(step as u64 * settings.train.batch as u64)));
    }
    rows.push(("data", facts.data_hash.clone()));
    if let Some(checkpoint) = newest_checkpoint(run).and_then(|folder| Checkpoint::open(&folder).ok()) {
        let state = checkpoint.state();
        rows.push(("checkpoint", format!("step {}, by {} ({})", thousands(state.step), state.isa, state.precision)));
        rows.push(("its hash", checkpoint.hash().to_owned()));
        rows.push(("hash of its settings", state.config.clone()));
    }
    rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect()
}

/// The processor's name where the system tells, its kind otherwise, and the cores that this program may use.
fn processor() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let text = std::fs::read_to_string(Path::new("/proc/cpuinfo")).unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_start_matches([' ', '\t', ':']));
    format!("{}, {cores} cores, {}", name.unwrap_or(std::env::consts::ARCH), std::env::consts::OS)
}
