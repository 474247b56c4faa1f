//! `ddpm train`: from settings and data to a run's folder with everything in it.

mod outputs;
mod painter;
mod plan;
mod report;
pub(super) mod signals;
mod watch;

use anyhow::{Context, Result};
use ddpm_nn::UNetConfig;
use ddpm_tensor::Precision;
use ddpm_train::{
    checkpoint::Weights,
    data::DataSet,
    memory::{self, Memory},
    model::Trained,
    run::{RunDir, RunLock},
    settings::Settings,
    trainer::{Outcome, Session, Trainer},
};

use super::machine::{self, Machinery, on_device};
use crate::{
    args::TrainArgs,
    failure::{Explain, Failure},
    output::Output,
    progress::{bytes, thousands},
};
use plan::Plan;
use report::Facts;
use signals::Signals;
use watch::Watch;

pub(super) fn run(args: &TrainArgs) -> Result<()> {
    let (run, done) = to_the_end(args)?;
    outputs::list(Output::new(args.talk), &run, done)
}

/// Trains, and returns the run with its steps.
pub(super) fn to_the_end(args: &TrainArgs) -> Result<(RunDir, u64)> {
    let output = Output::new(args.talk);
    machine::check(&args.machine)?;
    let plan = plan::plan(args)?;
    let (device, why) = machine::open(&args.machine, Precision::F32)?;
    on_device!(device, device => train(args, output, plan, device, why.as_deref()))
}

/// All that follows once the device is known.
fn train<B: Machinery>(
    args: &TrainArgs,
    output: Output,
    plan: Plan,
    device: B,
    why: Option<&str>,
) -> Result<(RunDir, u64)> {
    let Plan { settings, data, run, notes } = plan;
    let (height, width) = data.size();
    let classes = data.classes().map(<[String]>::len);
    let config = settings.unet(data.channels(), height, width, classes).at("network")?;
    data.check_batch(settings.train.batch).at("train.batch")?;

    let need = memory_needed(&device, &settings, &config, [height, width])?;
    let (run, lock) = enter(&settings, run)?;
    let place = run.root().to_owned();
    output.note(&first_line(&settings, &data, &config, &device.describe(), need, &run)?);
    for note in data.notes().iter().chain(&notes).map(String::as_str).chain(why) {
        output.note(note);
    }
    for skipped in data.skipped() {
        output.note(&format!("skipped {}: {}", skipped.name, skipped.reason));
    }

    let (engine, about) = (device.engine(), device.describe());
    let mut trainer = Trainer::new(device, engine, settings.clone(), &data).at(place.display())?;
    if let Some(path) = &args.init_from {
        init_from(&mut trainer, path, &config)?;
    }
    let signals = Signals::listen().context("cannot listen for signals")?;
    let facts = Facts::new(about, &data, trainer.unet().layout().count() as u64);
    let mut watch = Watch::new(output, &run, &settings, &facts);
    let session = Session::begin(trainer, run.clone(), lock, &mut watch);
    let mut session =
        session.at(place.display()).next("settings that change the numbers need a run of their own: --out")?;
    watch.begin(session.trainer().steps_done());
    let outcome = session.run(signals.stop(), args.stop_at, &mut watch);
    watch.finish();
    let outcome = outcome.at(place.display()).next("the last checkpoint stays: ddpm train --resume goes on from it")?;

    let done = session.trainer().steps_done();
    if outcome == Outcome::Stopped {
        return Err(stopped(&signals, &run, done));
    }
    outputs::curve(&run, &settings)?;
    if outcome == Outcome::Finished {
        let drawn = outputs::pictures(output, session.trainer(), &run, &signals)?;
        if !drawn {
            return Err(stopped(&signals, &run, done));
        }
    }
    report::write(&run, &settings, &facts)?;
    Ok((run, done))
}

fn stopped(signals: &Signals, run: &RunDir, done: u64) -> anyhow::Error {
    let what = match done {
        0 => "stopped before the first step".to_owned(),
        done => format!("stopped after {} steps, saved in {}", thousands(done), run.root().display()),
    };
    let hint = format!("ddpm train --resume --out {} goes on", run.root().display());
    Failure::stopped(signals.number(), what).next(hint).into()
}

/// Makes or opens the run's folder, locks it and writes its settings.
fn enter(settings: &Settings, run: plan::Place) -> Result<(RunDir, RunLock)> {
    let run = match run {
        plan::Place::Next(runs) => RunDir::next_free(&runs, &settings.train.name)?,
        plan::Place::New(root) => RunDir::create(&root).at(root.display())?,
        plan::Place::Resumed(run) => run,
    };
    let lock = run.lock().at(run.root().display())?;
    run.write_config(&settings.to_toml_commented()).at(run.root().display())?;
    Ok((run, lock))
}

/// Bytes that a step takes; on the CPU those of a rehearsal, which must be there.
fn memory_needed<B: Machinery>(
    device: &B,
    settings: &Settings,
    config: &UNetConfig,
    [height, width]: [usize; 2],
) -> Result<u64> {
    let at_once = settings.images_at_once().min(settings.train.batch);
    let early = if settings.ema.early > 0 { Memory::of(config, height, width)?.sampling_fixed } else { 0 };
    let need = |images: usize| -> Result<u64> {
        Ok(early
            + match device.rehearsal()? {
                Some(rehearsal) => memory::of_training(&rehearsal, config, [height, width], images)?,
                None => Memory::of(config, height, width)?.training(images),
            })
    };
    let needed = need(at_once)?;
    let available = memory::available();
    // a GPU has memory of its own
    if needed <= available || device.threads().is_none() {
        return Ok(needed);
    }
    let hint = match memory::most_at_once(at_once, available, need)? {
        Some(most) if most >= 16 => format!("--micro-batch {most} fits and gives the same numbers"),
        Some(most) => format!("--micro-batch {most} fits"),
        None => "not even one fits: a smaller network (network.block_out_channels) or smaller pictures (data.size)"
            .to_owned(),
    };
    let what = format!(
        "{at_once} pictures at once take {} of memory to train, and {} are free",
        bytes(needed),
        bytes(available)
    );
    Err(Failure::new(what).place("train.batch").next(hint).into())
}

/// Data, network, device, memory, place: one line.
fn first_line(
    settings: &Settings,
    data: &DataSet,
    config: &UNetConfig,
    device: &str,
    need: u64,
    run: &RunDir,
) -> Result<String> {
    let (height, width) = data.size();
    let parameters = Memory::of(config, height, width)?.parameters;
    let classes = data.classes().map(|classes| format!(" in {} classes", classes.len())).unwrap_or_default();
    let pixels = (data.count() * data.image_len()) as u64;
    let need = need + pixels;
    Ok(format!(
        "{}: {} pictures of {height}x{width}x{}{classes} ({} held out); network of {} parameters; {device}; \
         about {} of memory; writes to {}",
        settings.train.name,
        thousands(data.count() as u64),
        data.channels(),
        thousands(data.heldout_indices().len() as u64),
        thousands(parameters),
        bytes(need),
        run.root().display(),
    ))
}

/// Starts from another model's weights, which must be those of the same network.
fn init_from<B: Machinery>(trainer: &mut Trainer<B>, path: &std::path::Path, config: &UNetConfig) -> Result<()> {
    let raw = Trained::load(path, Weights::Raw).at(path.display())?;
    let ema = Trained::load(path, Weights::Ema).at(path.display())?;
    // The size of its pictures is no part of what the weights fit.
    let theirs = UNetConfig { sample_size: config.sample_size, dropout: config.dropout, ..raw.unet.config().clone() };
    if theirs != *config {
        let what = format!("--init-from has another network: {}", first_difference(&theirs, config));
        let hint = "set the network.* options to that model's; ddpm info shows them";
        return Err(Failure::new(what).place(path.display()).next(hint).into());
    }
    trainer.init_from(&raw.parameters, &ema.parameters)?;
    Ok(())
}

fn first_difference(theirs: &UNetConfig, ours: &UNetConfig) -> String {
    let value = |config: &UNetConfig| serde_json::to_value(config).unwrap_or_default();
    let (theirs, ours) = (value(theirs), value(ours));
    let pairs = theirs.as_object().into_iter().flatten();
    let first = pairs.into_iter().find(|(key, value)| ours.get(key.as_str()) != Some(value));
    first.map(|(key, value)| format!("{key} is {value}, not {}", ours[key.as_str()])).unwrap_or_default()
}
