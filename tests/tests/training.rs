//! A run as a whole: it learns, it looks, it stops before infinity, it survives damage.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ddpm_tests::{assert_same_files, tiny_run, tiny_settings, tiny_trainer};
use ddpm_train::Error;
use ddpm_train::checkpoint::Weights;
use ddpm_train::error::NotFinite;
use ddpm_train::run::RunDir;
use ddpm_train::trainer::{Heldout, Observer, Outcome, Preview, Quiet, Session, StepReport};

/// Hears everything.
#[derive(Default)]
struct Record {
    steps: Vec<StepReport>,
    previews: Vec<Preview>,
    checkpoints: Vec<u64>,
    lines: Vec<String>,
}

impl Observer for Record {
    fn step(&mut self, report: &StepReport) {
        self.steps.push(report.clone());
    }

    fn preview(&mut self, preview: &Preview) {
        self.previews.push(preview.clone());
    }

    fn checkpoint(&mut self, step: u64, folder: &Path) {
        assert!(folder.is_dir());
        self.checkpoints.push(step);
    }

    fn message(&mut self, line: &str) {
        self.lines.push(line.to_owned());
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

#[test]
fn it_learns_and_reports() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = tiny_settings();
    settings.train.steps = 120;
    settings.network.dropout = 0.0;
    settings.preview.every = 40;
    settings.checkpoint.every = 30;
    settings.checkpoint.keep = 2;
    settings.checkpoint.keep_every = 60;
    let mut record = Record::default();
    assert_eq!(tiny_run(folder.path(), 2, settings, None, &mut record).unwrap(), Outcome::Finished);

    let losses: Vec<f64> = record.steps.iter().map(|report| report.loss).collect();
    let (begin, end) = (mean(losses[..5].iter().copied()), mean(losses[100..].iter().copied()));
    assert!((0.9..1.2).contains(&begin), "the first outputs are 0, so the loss is the variance of eps: {begin}");
    assert!(end < 0.5 * begin, "{begin} to {end}");
    let heldout: Vec<(u64, Heldout)> =
        record.steps.iter().filter_map(|report| Some((report.step, report.heldout?))).collect();
    assert_eq!(heldout.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [40, 80, 120]);
    assert!(heldout[2].1.raw < heldout[0].1.raw && heldout[2].1.ema < heldout[0].1.ema, "{heldout:?}");

    assert_eq!(record.previews.iter().map(|preview| preview.step).collect::<Vec<_>>(), [40, 80]);
    for preview in &record.previews {
        assert_eq!(preview.raw.shape(), [4, 8, 8, 1]);
        assert!(preview.raw.iter().chain(&preview.ema).all(|x| x.abs() <= 1.5));
        assert_ne!(preview.raw, preview.ema);
    }
    assert_eq!(record.checkpoints, [30, 60, 90, 120]);
    let mut left: Vec<_> =
        fs::read_dir(folder.path().join("checkpoints")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["step-000060", "step-000090", "step-000120"]);

    let metrics = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 120);
    assert_eq!(lines[0].get("heldout_loss"), None);
    for key in ["step", "loss", "lr", "grad_norm", "images_per_s", "heldout_loss", "heldout_loss_ema"] {
        assert!(lines[39][key].is_number(), "{key} in {}", lines[39]);
    }
}

#[test]
fn every_prediction_and_loss_learns() {
    for (prediction, loss) in [("v", "l2"), ("x0", "huber"), ("eps", "l1")] {
        let mut settings = tiny_settings();
        settings.train.steps = 60;
        settings.diffusion.prediction = prediction.parse().unwrap();
        settings.diffusion.loss = loss.parse().unwrap();
        let mut trainer = tiny_trainer(2, settings).unwrap();
        let reports: Vec<StepReport> = (0..60).map(|_| trainer.step().unwrap()).collect();
        let (begin, end) = (mean(reports[..5].iter().map(|r| r.loss)), mean(reports[50..].iter().map(|r| r.loss)));
        assert!(end < 0.8 * begin, "{prediction}, {loss}: {begin} to {end}");
        assert_eq!(reports[0].objective.is_some(), loss != "l2");
    }
}

#[test]
fn the_heldout_loss_depends_on_the_weights_alone() {
    let mut trainer = tiny_trainer(2, tiny_settings()).unwrap();
    let before = trainer.heldout().unwrap().unwrap();
    assert_eq!(before.raw, before.ema);
    assert_eq!(trainer.heldout().unwrap().unwrap(), before);
    trainer.step().unwrap();
    assert_ne!(trainer.heldout().unwrap().unwrap().raw, before.raw);
    // In parts of 4 as in one.
    let mut settings = tiny_settings();
    settings.train.micro_batch = 4;
    assert_eq!(tiny_trainer(1, settings).unwrap().heldout().unwrap().unwrap(), before);
}

#[test]
fn weights_that_are_not_finite_stop_it_before_the_update() {
    let mut trainer = tiny_trainer(1, tiny_settings()).unwrap();
    trainer.step().unwrap();
    let mut poisoned = trainer.parameters(Weights::Raw).to_host(trainer.backend()).unwrap();
    let at = trainer.unet().layout().find("conv_in.bias").unwrap();
    poisoned[trainer.unet().layout().parameter(at).range.start] = f32::NAN;
    let ema = trainer.parameters(Weights::Ema).to_host(trainer.backend()).unwrap();
    trainer.init_from(&poisoned, &ema).unwrap();

    let error = trainer.step().unwrap_err();
    assert!(matches!(error, Error::NotFinite { step: 2, what: NotFinite::Loss, .. }), "{error}");
    assert!(error.to_string().contains("step 2") && error.to_string().contains("`conv_in.bias`"), "{error}");
    assert_eq!(trainer.steps_done(), 1);
    assert_eq!(trainer.parameters(Weights::Ema).to_host(trainer.backend()).unwrap(), ema);
}

#[test]
fn a_gradient_that_is_not_finite_stops_it_before_the_update() {
    let mut trainer = tiny_trainer(1, tiny_settings()).unwrap();
    let mut weights = trainer.parameters(Weights::Raw).to_host(trainer.backend()).unwrap();
    // Forward the two cancel; backward a product with the second alone overflows.
    for (name, value) in [("conv_norm_out.weight", 1e-30), ("conv_out.weight", 1e38)] {
        let at = trainer.unet().layout().find(name).unwrap();
        weights[trainer.unet().layout().parameter(at).range.clone()].fill(value);
    }
    trainer.init_from(&weights, &weights).unwrap();
    let error = trainer.step().unwrap_err();
    assert!(matches!(error, Error::NotFinite { step: 1, what: NotFinite::Gradient, .. }), "{error}");
    assert!(error.to_string().contains("first in `"), "{error}");
    assert_eq!(trainer.parameters(Weights::Raw).to_host(trainer.backend()).unwrap(), weights);
}

/// Sets the flag after some steps, as a signal would.
struct StopAfter<'a>(u64, &'a AtomicBool);

impl Observer for StopAfter<'_> {
    fn step(&mut self, report: &StepReport) {
        self.1.store(report.step >= self.0, Ordering::Relaxed);
    }
}

#[test]
fn a_signal_saves_and_the_run_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (undisturbed, stopped) = (folder.path().join("undisturbed"), folder.path().join("stopped"));
    tiny_run(&undisturbed, 2, tiny_settings(), None, &mut Quiet).unwrap();

    let run = RunDir::create(&stopped).unwrap();
    run.write_config("").unwrap();
    let lock = run.lock().unwrap();
    let trainer = tiny_trainer(2, tiny_settings()).unwrap();
    let mut session = Session::begin(trainer, run, lock, &mut Quiet).unwrap();
    let stop = AtomicBool::new(false);
    assert_eq!(session.run(&stop, None, &mut StopAfter(5, &stop)).unwrap(), Outcome::Stopped);
    drop(session);
    assert!(stopped.join("checkpoints/step-000005").is_dir());

    assert_eq!(tiny_run(&stopped, 2, tiny_settings(), None, &mut Quiet).unwrap(), Outcome::Finished);
    let last = |folder: &Path| folder.join("checkpoints/step-000024");
    assert_same_files("stopped by a signal", &last(&undisturbed), &last(&stopped));
    // A finished run stays as it is.
    assert_eq!(tiny_run(&stopped, 2, tiny_settings(), None, &mut Quiet).unwrap(), Outcome::Finished);
}

#[test]
fn a_damaged_newest_is_put_aside_and_the_run_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (undisturbed, damaged) = (folder.path().join("undisturbed"), folder.path().join("damaged"));
    tiny_run(&undisturbed, 2, tiny_settings(), None, &mut Quiet).unwrap();
    let mut settings = tiny_settings();
    settings.checkpoint.every = 4;
    tiny_run(&damaged, 2, settings.clone(), Some(12), &mut Quiet).unwrap();
    let moments = damaged.join("checkpoints/step-000012/moments.safetensors");
    let bytes = fs::read(&moments).unwrap();
    fs::write(&moments, &bytes[..bytes.len() / 2]).unwrap();

    let mut record = Record::default();
    tiny_run(&damaged, 2, settings, None, &mut record).unwrap();
    assert!(record.lines[0].contains("step 12") && record.lines[0].contains("of step 8"), "{:?}", record.lines);
    assert_eq!(record.steps[0].step, 9);
    let last = |folder: &Path| folder.join("checkpoints/step-000024");
    assert_same_files("resumed from the one before", &last(&undisturbed), &last(&damaged));
}

#[test]
fn other_settings_or_a_second_trainer_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    tiny_run(folder.path(), 2, tiny_settings(), Some(2), &mut Quiet).unwrap();
    let mut settings = tiny_settings();
    settings.optimiser.lr = 1e-4;
    let error = tiny_run(folder.path(), 2, settings, None, &mut Quiet).unwrap_err();
    assert!(error.to_string().contains("optimiser.lr has changed"), "{error}");
    let mut settings = tiny_settings();
    settings.train.steps = 3;
    settings.train.micro_batch = 16;
    settings.checkpoint.every = 1;
    assert_eq!(tiny_run(folder.path(), 2, settings, None, &mut Quiet).unwrap(), Outcome::Finished);

    let _lock = RunDir::open(folder.path()).unwrap().lock().unwrap();
    let error = tiny_run(folder.path(), 2, tiny_settings(), None, &mut Quiet).unwrap_err();
    assert!(error.to_string().contains("another trainer"), "{error}");
}
