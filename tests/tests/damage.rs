//! Truncated files and flipped bits of a small network's checkpoint: every one is noticed, none is a panic.
//!
//! A seeded tenth of the cases by default, all of them under `DDPM_TORTURE=full`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use ddpm_tensor::random::{Address, Purpose};
use ddpm_tests::{files, tiny_run, tiny_settings, torture};
use ddpm_train::checkpoint::{self, Checkpoint};
use ddpm_train::run::Model;
use ddpm_train::trainer::Quiet;

/// The case's own random numbers.
fn random(case: u64) -> [u32; 4] {
    Address::new(5, Purpose::Test).at_sample(case).block(0)
}

fn cases(all: u64) -> impl Iterator<Item = u64> {
    (0..all).step_by(if torture() { 1 } else { 10 })
}

/// A run of two steps with a checkpoint of each.
fn two_checkpoints(folder: &Path) {
    let mut settings = tiny_settings();
    settings.checkpoint.every = 1;
    tiny_run(folder, 2, settings, Some(2), &mut Quiet).unwrap();
}

/// The newest is refused with a reason that names the file, and the run's model is the one before.
fn assert_noticed(run: &Path, file: &str, what: &str) {
    let error = Checkpoint::open(&run.join("checkpoints/step-000002")).and_then(|checkpoint| checkpoint.verify());
    let message = error.expect_err(what).to_string();
    assert!(message.contains(file), "{what}: {message}");
    match Model::find(run).unwrap() {
        Model::Checkpoint { checkpoint, report, .. } => {
            assert_eq!(checkpoint.state().step, 1, "{what}");
            assert!(report.unwrap().contains("step 2"), "{what}");
        }
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn truncations_are_noticed() {
    let run = tempfile::tempdir().unwrap();
    two_checkpoints(run.path());
    let newest = run.path().join("checkpoints/step-000002");
    let files: Vec<_> = files(&newest).into_iter().collect();
    for case in cases(200) {
        let [part, fine, ..] = random(case);
        let (name, whole) = &files[case as usize % files.len()];
        // The ends of a file are where something hides; a quarter of the cases lies there.
        let length = match case % 4 {
            0 => whole.len() - 1 - fine as usize % 16,
            _ => part as usize % whole.len(),
        };
        fs::write(newest.join(name), &whole[..length]).unwrap();
        assert_noticed(run.path(), name, &format!("{name} cut from {} to {length} bytes", whole.len()));
        fs::write(newest.join(name), whole).unwrap();
    }
    assert!(checkpoint::newest(&run.path().join("checkpoints")).unwrap().report().is_none());
}

#[test]
fn flipped_bits_are_noticed() {
    let run = tempfile::tempdir().unwrap();
    two_checkpoints(run.path());
    let newest = run.path().join("checkpoints/step-000002");
    let files: Vec<_> = files(&newest).into_iter().collect();
    for case in cases(2000) {
        let [place, bit, ..] = random(case);
        let (name, whole) = &files[case as usize % files.len()];
        let place = place as usize % whole.len();
        let mut flipped = whole.clone();
        flipped[place] ^= 1 << (bit % 8);
        fs::write(newest.join(name), flipped).unwrap();
        assert_noticed(run.path(), name, &format!("bit {} of byte {place} of {name}", bit % 8));
        fs::write(newest.join(name), whole).unwrap();
    }
    assert!(checkpoint::newest(&run.path().join("checkpoints")).unwrap().report().is_none());
}

#[test]
fn missing_files_are_noticed() {
    let run = tempfile::tempdir().unwrap();
    two_checkpoints(run.path());
    let newest = run.path().join("checkpoints/step-000002");
    for (name, whole) in files(&newest) {
        fs::remove_file(newest.join(&name)).unwrap();
        assert_noticed(run.path(), &name, &format!("{name} is gone"));
        fs::write(newest.join(&name), whole).unwrap();
    }
}
