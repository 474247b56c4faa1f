//! The plan of a training step on a GPU, counted through a driver that notes each launch and runs none.
//!
//! `cargo xtask gpu-plan` prints it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // for people who ask

#[path = "../../crates/ddpm-kernels/tests/cuda_on_cpu/stand_in.rs"]
mod stand_in;

use std::ops::Range;
use std::sync::Arc;

use ddpm_tensor::{Cuda, Precision};
use ddpm_tests::gpu_plan::{Launch, MULTIPROCESSORS, Plan, Step, Usage, usages};
use ddpm_train::data::{DataOptions, DataSet};
use ddpm_train::presets;
use ddpm_train::trainer::{Engine, Trainer};

/// What `cargo xtask gpu-plan` asks for: "PRESET BATCH PRECISION".
const ASKED: &str = "DDPM_GPU_PLAN";
const NOTES: &str = "DDPM_STAND_IN_RECORD";

fn page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/gpu.md")).unwrap()
}

/// The plan of a preset's training step. Runs the test of that name again, in a process where the driver is.
fn plan(test: &str, preset: &str, batch: usize, precision: Precision) -> Option<Plan> {
    if std::env::var_os(NOTES).is_some() {
        let mut settings = presets::find(preset).unwrap().settings();
        settings.train.batch = batch;
        settings.data.holdout = 0.0;
        let (size, channels) = (settings.data.size, settings.data.channels);
        let size = [batch, size.height(), size.width(), channels];
        let labels = settings.data.classes.then(|| (0..batch).map(|i| i as u32 % 10).collect());
        let options = DataOptions { classes: settings.data.classes, holdout: 0.0, ..DataOptions::default() };
        let pixels = vec![128; size.iter().product()];
        let data = Arc::new(DataSet::from_pixels("plan", pixels, size, labels, None, &options).unwrap());
        let engine = Engine { isa: "cuda".into(), precision: precision.to_string() };
        let cuda = Cuda::new(0, precision).unwrap();
        let mut trainer = Trainer::new(cuda, engine, settings, &data).unwrap();
        for _ in 0..2 {
            trainer.step().unwrap();
        }
        return None;
    }
    let notes = tempfile::NamedTempFile::new().unwrap();
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(NOTES, notes.path());
    let device = format!("dry=1 memory=80000000000 capability=90 multiprocessors={MULTIPROCESSORS}");
    let again = again.env("LD_LIBRARY_PATH", stand_in::folder()).env("DDPM_STAND_IN", device);
    let output = again.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(Plan::of_last_step(&std::fs::read_to_string(notes.path()).unwrap(), &usages(&page())).unwrap())
}

#[test]
fn the_plan_that_was_asked_for() {
    let asked = std::env::var(ASKED).unwrap_or_default();
    let [preset, batch, precision] = asked.split(' ').collect::<Vec<_>>()[..] else { return };
    let (batch, precision) = (batch.parse().unwrap(), precision.parse().unwrap());
    if let Some(plan) = plan("the_plan_that_was_asked_for", preset, batch, precision) {
        println!("\n{}\n{}\n{}", plan.table(), plan.by_kernel(), plan.bounds());
    }
}

/// The plan of `cifar10` at batch 128: no large launch leaves multiprocessors idle, and FLOPs are what the network has: 3 x 12.4
/// GFLOP an image, the zeros between the pixels of gradients of strided convolutions, and three for one of split numbers.
fn check_cifar10(test: &str, precision: Precision, expected: Range<f64>) {
    let Some(plan) = plan(test, "cifar10", 128, precision) else { return };
    let table = plan.table();
    let idle: Vec<_> = plan.idle().into_iter().map(|s| (&s.launch.kernel, s.launch.grid)).collect();
    assert!(idle.is_empty(), "{idle:?}\n{table}");
    let flops: f64 = plan.steps.iter().map(|step| step.cost.flops).sum();
    assert!(expected.contains(&flops), "{flops:e}");
    let bounds = plan.bounds();
    assert!(bounds.contains(&format!("launches: {}, ", plan.steps.len())), "{bounds}");
    assert!(bounds.contains("less than a wave: 0, kept"), "{bounds}");
    println!("{precision}\n{}\n{bounds}", plan.by_kernel());
}

#[test]
fn no_large_launch_leaves_multiprocessors_idle_in_strict() {
    check_cifar10("no_large_launch_leaves_multiprocessors_idle_in_strict", Precision::Strict, 4.7e12..5.8e12);
}

#[test]
fn no_large_launch_leaves_multiprocessors_idle_in_f32() {
    check_cifar10("no_large_launch_leaves_multiprocessors_idle_in_f32", Precision::F32, 14.1e12..17.4e12);
}

#[test]
fn no_large_launch_leaves_multiprocessors_idle_in_bf16() {
    // attention multiplies split numbers
    check_cifar10("no_large_launch_leaves_multiprocessors_idle_in_bf16", Precision::Bf16, 4.7e12..7e12);
}

#[test]
fn occupancy_is_what_the_tightest_of_registers_memory_threads_allows() {
    let launch = |shared, threads| Launch {
        kernel: "affine_f32".into(),
        grid: [7, 3, 1],
        threads,
        shared,
        arguments: vec![vec![0], vec![0], vec![0], vec![0], vec![1000]],
    };
    let resident = |registers, shared, dynamic, threads| {
        let usage = [("affine_f32".to_owned(), Usage { registers, shared })].into();
        Step::new(launch(dynamic, threads), &usage).unwrap().resident
    };
    assert_eq!(resident(158, 0, 30_000, 128), 3);
    assert_eq!(resident(32, 0, 0, 128), 16);
    assert_eq!(resident(16, 0, 0, 32), 32);
    assert_eq!(resident(32, 40_000, 10_000, 128), 4);
    let usages = usages("| kernel | x | y |\n|---|---|---|\n| `affine_f32` | 1024 | 144, 18, 141, 20 |\n");
    assert_eq!(usages["affine_f32"], Usage { registers: 20, shared: 1024 });
    let step = Step::new(launch(0, 256), &usages).unwrap();
    assert_eq!((step.launch.blocks(), step.cost.bytes), (21, 8000.0));
    assert!(Step::new(Launch { kernel: "other".into(), ..launch(0, 1) }, &usages).unwrap_err().contains("`other`"));
    let line = "affine_f32 7 3 1 16 8 1 256 0000000000000001 000000000000000200000000000003e8";
    let parsed = Launch::parse(line).unwrap();
    assert_eq!((parsed.threads, parsed.shared, parsed.grid), (128, 256, [7, 3, 1]));
    assert_eq!(parsed.arguments, [vec![1], vec![2, 1000]]);
}
