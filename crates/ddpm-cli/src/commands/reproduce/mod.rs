//! `ddpm reproduce`: what a figure of Ho et al. 2020 shows, at the scale of a preset and of the time there is.

mod figures;

use std::path::{Path, PathBuf};

use anyhow::Result;
use ddpm_train::{presets, run::RunDir, settings::Settings};
use serde_json::json;

use self::figures::FIGURES;
use super::{
    curves::Curves,
    machine::{self, on_device},
    studio::Ready,
    train,
};
use crate::{
    args::{ReproduceArgs, TrainArgs},
    failure::{Explain, Failure},
    output::Output,
    picture::png,
    progress::{duration, thousands},
};

/// Steps from which the speed of training is known well enough.
const PROBE: u64 = 20;
/// What else the paper has, and `reproduce` not yet.
const LATER: [&str; 7] = ["table1", "table2", "table3", "fig4", "fig5", "fig9", "fig10"];

pub(super) fn run(args: &ReproduceArgs) -> Result<()> {
    let output = Output::new(args.talk);
    let known = || FIGURES.iter().map(|figure| figure.name).collect::<Vec<_>>().join(", ");
    let Some(figure) = FIGURES.iter().find(|figure| figure.name == args.name) else {
        let failure = if LATER.contains(&args.name.as_str()) {
            Failure::not_built(format!("ddpm reproduce {}", args.name))
        } else {
            Failure::usage(format!("there is no figure `{}` to reproduce", args.name))
        };
        return Err(failure.place("ddpm reproduce").next(format!("there are: {}", known())).into());
    };
    presets::find(&args.preset).at("--preset")?;
    machine::check(&args.machine)?;
    let folder = args.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("reproduce-{}", args.preset)));
    let model = trained(args, output, &folder.join("model"))?;
    let settings = settings(&model)?;

    let how = figures::how();
    let (ready, device) = Ready::open(model.root(), &how, &args.machine, output)?;
    let steps = ready.model.step.unwrap_or_default();
    let (picture, about) = on_device!(device, device => {
        let studio = ready.on(device)?;
        ((figure.draw)(&figures::Scene::new(&studio, &how, &settings)?)?, studio.about())
    });
    let path = folder.join(format!("{}.png", figure.name));
    let mut about = about;
    about["command"] = json!(format!("reproduce {}", figure.name));
    png::write(&path, &picture, &[("ddpm".to_owned(), about.to_string())]).at(path.display())?;
    output.result(&path.display().to_string())?;
    output.result(&format!("paper  {}", figure.paper))?;
    let scale = format!("{}, {} steps of {}", args.preset, thousands(steps), settings.train.batch);
    output.result(&format!("here   the same of {scale}: {}", figure.here))?;
    output.json(&json!({
        "name": figure.name, "out": path, "model": model.root(), "model_steps": steps, "preset": args.preset,
        "paper": figure.paper, "here": figure.here,
    }))?;
    Ok(())
}

fn settings(run: &RunDir) -> Result<Settings> {
    let path = run.config().display().to_string();
    Settings::from_toml(&run.read_config()?, &path).at(&path)
}

/// The run to draw with: trained now, gone on with, or there already.
fn trained(args: &ReproduceArgs, output: Output, root: &Path) -> Result<RunDir> {
    if RunDir::open(root).is_err() {
        // A few steps tell how many fit into the time.
        train::to_the_end(&train_args(args, root, Part { stop_at: Some(PROBE), ..Part::default() }))?;
    }
    let run = RunDir::open(root).at(root.display())?;
    let (curves, settings) = (Curves::read(&run)?, settings(&run)?);
    let done = curves.last_step().unwrap_or_default() as u64;
    if done > PROBE.min(settings.train.steps) {
        // Its length was decided at its beginning.
        train::to_the_end(&train_args(args, root, Part { resume: true, ..Part::default() }))?;
        return Ok(run);
    }
    let speed = curves.median("images_per_s").unwrap_or(f64::INFINITY);
    let seconds = 60.0 * args.budget as f64;
    let fitting = (seconds * speed / settings.train.batch as f64).min(settings.train.steps as f64) as u64;
    let steps = fitting.max(PROBE);
    output.note(&format!(
        "{} of {} steps fit into {} at {speed:.0} images/s",
        thousands(steps),
        thousands(settings.train.steps),
        duration(seconds)
    ));
    train::to_the_end(&train_args(args, root, Part { resume: true, steps: Some(steps), ..Part::default() }))?;
    Ok(run)
}

/// Which part of the training.
#[derive(Clone, Copy, Default)]
struct Part {
    resume: bool,
    steps: Option<u64>,
    stop_at: Option<u64>,
}

fn train_args(args: &ReproduceArgs, root: &Path, part: Part) -> TrainArgs {
    TrainArgs {
        preset: (!part.resume).then(|| args.preset.clone()),
        config: None,
        data: args.data.clone().filter(|_| !part.resume),
        out: Some(PathBuf::from(root)),
        steps: part.steps.and_then(|steps| i64::try_from(steps).ok()),
        batch: None,
        micro_batch: None,
        seed: None,
        init_from: None,
        resume: part.resume,
        stop_at: part.stop_at,
        set: Vec::new(),
        machine: args.machine.clone(),
        talk: args.talk,
    }
}
