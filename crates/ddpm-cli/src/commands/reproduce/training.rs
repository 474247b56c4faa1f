//! Models that are trained for a part: as many steps as fit into the time, and gone on with where they were stopped.

use std::path::{Path, PathBuf};

use anyhow::Result;
use ddpm_train::{run::RunDir, settings::Settings};

use super::{
    super::{curves::Curves, train},
    GO_ON, Work,
};
use crate::{
    args::TrainArgs,
    failure::{Explain, hint_if_stopped, is_not_finite},
    progress::{duration, thousands},
};

/// Steps from which the speed of training is known well enough.
const PROBE: u64 = 20;

/// A model that is to be trained.
pub(super) struct Wanted {
    /// The run's folder.
    pub(super) root: PathBuf,
    /// Settings beside the preset's and the user's.
    pub(super) set: Vec<String>,
}

/// What became of it.
pub(super) enum Outcome {
    /// It was trained to its end.
    Trained(RunDir),
    /// It ran into infinity, and where.
    Diverged(String),
}

/// The one model of a part, which other parts find again.
pub(super) fn one(work: &Work<'_>) -> Result<PathBuf> {
    let root = work.folder.join("model");
    let wanted = Wanted { root: root.clone(), set: Vec::new() };
    match all(work, &[wanted])?.pop() {
        Some(Outcome::Diverged(what)) => Err(anyhow::anyhow!(what)).at(root.display()),
        _ => Ok(root),
    }
}

/// Trains models for equally many steps, as many as fit into the time for all of them. How many is decided once, from the
/// speed of their first steps, so that learning rates end where they should.
pub(super) fn all(work: &Work<'_>, wanted: &[Wanted]) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        outcomes.push(begun(work, wanted)?);
    }
    let steps = match decided(&outcomes)? {
        Some(steps) => steps,
        None => fitting(work, &outcomes)?,
    };
    for outcome in &mut outcomes {
        if let Outcome::Trained(run) = outcome {
            let part = Part { resume: true, steps: Some(steps), ..Part::default() };
            *outcome = train(work, run.root(), part)?;
        }
    }
    Ok(outcomes)
}

/// A run with its first steps.
fn begun(work: &Work<'_>, wanted: &Wanted) -> Result<Outcome> {
    let root = &wanted.root;
    let part = match RunDir::open(root) {
        Err(_) => Part { set: wanted.set.clone(), stop_at: Some(PROBE), ..Part::default() },
        Ok(run) => {
            let settings = settings(&run)?;
            if done(&run) >= PROBE.min(settings.train.steps) {
                return Ok(Outcome::Trained(run));
            }
            Part { resume: true, stop_at: Some(PROBE), ..Part::default() }
        }
    };
    train(work, root, part)
}

/// Steps that a run has made.
fn done(run: &RunDir) -> u64 {
    Curves::read(run).ok().and_then(|curves| curves.last_step()).unwrap_or_default() as u64
}

pub(super) fn settings(run: &RunDir) -> Result<Settings> {
    let path = run.config().display().to_string();
    Settings::from_toml(&run.read_config()?, &path).at(&path)
}

/// The steps that were decided on when one of the runs went beyond its first.
fn decided(outcomes: &[Outcome]) -> Result<Option<u64>> {
    for outcome in outcomes {
        let Outcome::Trained(run) = outcome else { continue };
        let steps = settings(run)?.train.steps;
        if done(run) > PROBE.min(steps) {
            return Ok(Some(steps));
        }
    }
    Ok(None)
}

/// Steps that all runs can make in the time for them together, at most the preset's.
fn fitting(work: &Work<'_>, outcomes: &[Outcome]) -> Result<u64> {
    let (mut seconds_each, mut most) = (0.0, u64::MAX);
    for outcome in outcomes {
        let Outcome::Trained(run) = outcome else { continue };
        let settings = settings(run)?;
        let speed = Curves::read(run)?.median("images_per_s").unwrap_or(f64::INFINITY);
        seconds_each += settings.train.batch as f64 / speed;
        most = most.min(settings.train.steps);
    }
    if seconds_each == 0.0 {
        return Ok(PROBE);
    }
    let seconds = 60.0 * work.args.budget as f64;
    // a float that is too large becomes the largest integer
    let steps = ((seconds / seconds_each) as u64).max(PROBE).min(most);
    let models = if outcomes.len() == 1 { String::new() } else { format!(" of {} models", outcomes.len()) };
    let fit = format!("{} of {} steps{models} fit", thousands(steps), thousands(most));
    work.output.note(&format!("{fit} into {}, at {seconds_each:.3} s for a step", duration(seconds)));
    Ok(steps)
}

/// Which part of the training.
#[derive(Clone, Default)]
struct Part {
    resume: bool,
    steps: Option<u64>,
    stop_at: Option<u64>,
    set: Vec<String>,
}

fn train(work: &Work<'_>, root: &Path, part: Part) -> Result<Outcome> {
    work.watch()?;
    let args = work.args;
    let arguments = TrainArgs {
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
        // the part's last: they are what it is about
        set: if part.resume { Vec::new() } else { [args.set.clone(), part.set].concat() },
        machine: args.machine.clone(),
        talk: args.talk,
    };
    match train::to_the_end(&arguments) {
        Ok((run, _)) => Ok(Outcome::Trained(run)),
        Err(error) if is_not_finite(&error) => Ok(Outcome::Diverged(error.to_string())),
        Err(error) => Err(hint_if_stopped(error, GO_ON)),
    }
}
