//! Every objective: the losses of its first steps are PyTorch's, and neither a stop nor threads change a bit of what it learns.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;

use ddpm_tests::objectives::{OBJECTIVES, trainer};
use ddpm_tests::{assert_same_files, tiny_run, tiny_settings, tiny_trainer};
use ddpm_train::checkpoint::{EARLY, LOG_VARIANCE, LOSSES};
use ddpm_train::settings::Settings;
use ddpm_train::trainer::{Outcome, Quiet};

#[path = "../fixtures/fixture.rs"]
mod fixture;

/// Of a loss in the first step, and in the first ten, in which differences of rounding grow.
const FIRST: f64 = 1e-4;
const TEN: f64 = 5e-3;

#[test]
fn the_first_ten_losses_are_pytorchs() {
    let text = fs::read_to_string(fixture::folder("objectives.json")).unwrap();
    let reference: BTreeMap<String, Vec<f64>> = serde_json::from_str(&text).unwrap();
    assert_eq!(reference.len(), OBJECTIVES.len());
    let mut far = Vec::new();
    for (name, changes) in OBJECTIVES {
        let mut trainer = trainer(changes).unwrap();
        let theirs = &reference[*name];
        let errors: Vec<f64> = (theirs.iter())
            .map(|theirs| {
                let report = trainer.step().unwrap();
                (report.objective.unwrap_or(report.loss) / theirs - 1.0).abs()
            })
            .collect();
        let worst = errors.iter().copied().fold(0.0, f64::max);
        println!("{name}: first {:.1e}, worst {worst:.1e}", errors[0]);
        if errors.len() != 10 || errors[0].is_nan() || errors[0] > FIRST || worst.is_nan() || worst > TEN {
            far.push(format!("{name}: {errors:?}"));
        }
    }
    assert!(far.is_empty(), "{far:#?}");
}

/// Settings in which everything that a run can remember is remembered.
fn all_at_once() -> Settings {
    let mut settings = tiny_settings();
    let d = &mut settings.diffusion;
    d.timesteps = 50; // as many as the steps of a preview
    d.time_steps = "loss_second_moment".parse().unwrap();
    d.variance = "learned_range".parse().unwrap();
    (d.learn_log_variance, d.self_conditioning, d.offset_noise) = (true, true, 0.1);
    (settings.ema.early, settings.preview.autoguidance) = (5, 2.0);
    settings
}

#[test]
fn a_stop_changes_no_bit_of_what_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    assert_eq!(tiny_run(&at("whole"), 2, all_at_once(), None, &mut Quiet).unwrap(), Outcome::Finished);
    let mut parts = all_at_once();
    parts.train.micro_batch = 16;
    for (stop, threads) in [(Some(7), 1), (Some(15), 2), (None, 1)] {
        tiny_run(&at("parts"), threads, parts.clone(), stop, &mut Quiet).unwrap();
    }
    let checkpoint = |run: &str| at(run).join("checkpoints/step-000024");
    assert_same_files("stopped twice", &checkpoint("whole"), &checkpoint("parts"));
    for file in [LOSSES, LOG_VARIANCE, EARLY] {
        assert!(checkpoint("whole").join(file).is_file(), "{file}");
    }
    // Without them it is no checkpoint of this run.
    fs::remove_file(checkpoint("parts").join(LOSSES)).unwrap();
    fs::remove_dir_all(at("parts").join("checkpoints/step-000015")).unwrap();
    tiny_run(&at("parts"), 2, parts, None, &mut Quiet).unwrap();
    assert_same_files("from an earlier one", &checkpoint("whole"), &checkpoint("parts"));
}

#[test]
fn time_steps_follow_their_losses_once_all_are_known() {
    let mut trainer = tiny_trainer(2, all_at_once()).unwrap();
    let mut count = [[0_usize; 50]; 2];
    for step in 0..60 {
        trainer.step().unwrap();
        for &t in trainer.last_batch().time_steps {
            count[usize::from(step >= 20)][t] += 1;
        }
    }
    let spread = |count: &[usize]| {
        let mean = count.iter().sum::<usize>() as f64 / 50.0;
        count.iter().map(|&n| (n as f64 - mean).powi(2)).sum::<f64>() / (50.0 * mean)
    };
    // of a uniform draw it is near 1
    assert!(spread(&count[0]) < 2.0 && spread(&count[1]) > 2.0, "{count:?}");
}

#[test]
fn every_objective_learns_and_draws() {
    for changes in [
        &["prediction=mean"][..],
        &["prediction=mean", "loss=vlb"],
        &["variance=learned_range"],
        &["variance=learned", "loss=vlb", "prediction=x0"],
        &["self_conditioning=true", "variance=learned_range", "prediction=v"],
    ] {
        let mut settings = tiny_settings();
        settings.train.steps = 60;
        settings.data.class_dropout = 0.1;
        settings.preview.sampler = "ddpm".to_owned();
        settings.preview.steps = 5;
        settings.preview.guidance = 2.0;
        let mut layers = ddpm_train::settings::Layers::new();
        for change in changes {
            layers.set(&format!("diffusion.{change}")).unwrap();
        }
        let mut trainer = tiny_trainer(2, layers.over(&settings).unwrap()).unwrap();
        let reports: Vec<_> = (0..60).map(|_| trainer.step().unwrap()).collect();
        let mean = |part: &[ddpm_train::trainer::StepReport]| {
            part.iter().map(|r| r.objective.unwrap_or(r.loss)).sum::<f64>() / part.len() as f64
        };
        let (begin, end) = (mean(&reports[..5]), mean(&reports[50..]));
        assert!(end < 0.8 * begin, "{changes:?}: {begin} to {end}");
        assert!(trainer.heldout().unwrap().unwrap().raw.is_finite());
        let preview = trainer.preview(&false.into()).unwrap().unwrap();
        assert_eq!(preview.raw.shape(), [4, 8, 8, 1]);
        assert!(preview.raw.iter().all(|x| x.abs() <= 1.5), "{changes:?}");
    }
}
