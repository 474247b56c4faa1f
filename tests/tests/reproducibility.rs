//! One run, one result: threads, micro-batches and interruptions change no byte of a checkpoint.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use ddpm_tests::{assert_same_files, tiny_run, tiny_settings, torture};
use ddpm_train::settings::Settings;
use ddpm_train::trainer::{Observer, Outcome, Quiet, StepReport};

fn last(folder: &Path) -> PathBuf {
    folder.join("checkpoints/step-000024")
}

/// The undisturbed run: one thread, the whole batch at once.
fn reference(folder: &Path) -> PathBuf {
    assert_eq!(tiny_run(folder, 1, tiny_settings(), None, &mut Quiet).unwrap(), Outcome::Finished);
    last(folder)
}

fn with(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = tiny_settings();
    change(&mut settings);
    settings
}

#[test]
fn threads_micro_batches_and_interruptions_change_no_byte() {
    let folder = tempfile::tempdir().unwrap();
    let reference = reference(&folder.path().join("reference"));
    let cases = [
        ("two threads", 2, with(|_| {}), None),
        ("micro-batches of 16", 2, with(|s| s.train.micro_batch = 16), None),
        ("micro-batches of 32", 1, with(|s| s.train.micro_batch = 32), None),
        ("micro-batches of 48", 1, with(|s| s.train.micro_batch = 48), None),
        ("stopped at 12", 2, with(|_| {}), Some(12)),
        ("previews and frequent checkpoints", 2, with(|s| (s.preview.every, s.checkpoint.every) = (5, 7)), None),
    ];
    for (what, threads, settings, stop_at) in cases {
        let folder = folder.path().join(what);
        let outcome = tiny_run(&folder, threads, settings.clone(), stop_at, &mut Quiet).unwrap();
        if stop_at.is_some() {
            assert_eq!(outcome, Outcome::StoppedAt);
            assert!(!last(&folder).exists() && folder.join("checkpoints/step-000012").exists());
            // Taken up again with other threads and micro-batches than it was begun with.
            let settings = with(|s| s.train.micro_batch = 16);
            assert_eq!(tiny_run(&folder, 1, settings, None, &mut Quiet).unwrap(), Outcome::Finished);
        }
        assert_same_files(what, &reference, &last(&folder));
    }
}

/// That the test above can fail: what must change the bytes does.
#[test]
fn another_seed_or_micro_batches_of_another_size_change_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let reference = ddpm_tests::files(&reference(&folder.path().join("reference")));
    let mut lines = Lines::default();
    for (what, settings) in [("seed", with(|s| s.train.seed = 8)), ("groups", with(|s| s.train.micro_batch = 20))] {
        let folder = folder.path().join(what);
        tiny_run(&folder, 2, settings, None, &mut lines).unwrap();
        let other = ddpm_tests::files(&last(&folder));
        assert_ne!(reference["weights.safetensors"], other["weights.safetensors"], "{what}");
    }
    assert_eq!(lines.0.len(), 1, "{:?}", lines.0);
    assert!(lines.0[0].contains("micro-batches of 20 are no multiple of 16"));
}

#[test]
fn stopping_at_any_step_changes_no_byte() {
    let folder = tempfile::tempdir().unwrap();
    let reference = reference(&folder.path().join("reference"));
    let steps: Vec<u64> = if torture() { (1..24).collect() } else { vec![1, 17] };
    for step in steps {
        let folder = folder.path().join(step.to_string());
        tiny_run(&folder, 2, tiny_settings(), Some(step), &mut Quiet).unwrap();
        tiny_run(&folder, 2, tiny_settings(), None, &mut Quiet).unwrap();
        assert_same_files(&format!("stopped at {step}"), &reference, &last(&folder));
        let metrics = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
        let steps: Vec<_> = metrics
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap())
            .collect();
        assert_eq!(steps, (1..=24).collect::<Vec<_>>());
    }
}

/// Collects what people are told.
#[derive(Default)]
struct Lines(Vec<String>);

impl Observer for Lines {
    fn message(&mut self, line: &str) {
        self.0.push(line.to_owned());
    }

    fn step(&mut self, report: &StepReport) {
        assert!(report.loss.is_finite() && report.grad_norm > 0.0 && report.images_per_s > 0.0);
    }
}
