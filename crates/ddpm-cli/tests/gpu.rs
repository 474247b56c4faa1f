//! The program with a GPU: a stand-in for NVIDIA's driver lies where the dynamic loader looks first, and runs the kernels'
//! own sources on the CPU.
#![allow(clippy::unwrap_used)]

#[path = "../../ddpm-kernels/tests/cuda_on_cpu/stand_in.rs"]
mod stand_in;

use std::path::Path;

use assert_cmd::Command;
use predicates::str::contains;
use serde_json::Value;

/// The program, in a folder, with a GPU whose driver is asked for `settings`.
fn ddpm(folder: &Path, settings: &str) -> Command {
    let mut command = Command::cargo_bin("ddpm").unwrap();
    command.current_dir(folder).env("LD_LIBRARY_PATH", stand_in::folder()).env("DDPM_STAND_IN", settings);
    command
}

/// A network of two levels, so that the stand-in has little to do.
const TINY: [&str; 16] = [
    "--set",
    "network.block_out_channels=[8,8]",
    "--set",
    "network.down_block_types=[\"DownBlock2D\",\"AttnDownBlock2D\"]",
    "--set",
    "network.norm_num_groups=4",
    "--set",
    "preview.count=0",
    "--set",
    "data.size=16",
    "--set",
    "data.holdout=0",
    "--batch",
    "4",
    "--device",
    "cuda",
];

#[test]
fn training_sampling_and_predicting_run_on_the_gpu_and_agree_with_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let train = ["train", "--out", "run", "--steps", "3", "--precision", "strict"];
    let trained = ddpm(at, "").args(train).args(TINY).assert().code(0);
    trained.stderr(contains("GPU 0, CPU in a GPU's place, capability 8.0"));
    let state = std::fs::read_to_string(at.join("run/checkpoints/step-000003/state.json")).unwrap();
    assert!(state.contains("cuda sm_80"), "{state}");

    let sample = ["sample", "run", "-n", "2", "--steps", "3", "--seed", "5", "--out"];
    for (device, out) in [("auto", "auto.npy"), ("cuda", "cuda.npy"), ("cpu", "cpu.npy")] {
        ddpm(at, "").args(sample).args([out, "--device", device, "--precision", "strict"]).assert().code(0);
    }
    let read = |name: &str| {
        let file = npyz::NpyFile::new(std::fs::File::open(at.join(name)).unwrap()).unwrap();
        file.into_vec::<f32>().unwrap()
    };
    let (ours, reference) = (read("cuda.npy"), read("cpu.npy"));
    assert_eq!(read("auto.npy"), ours, "auto takes the GPU");
    let worst = ours.iter().zip(&reference).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= 1e-4, "samples differ by {worst}");

    // another device's run goes on
    let resumed = ddpm(at, "").args(["train", "--resume", "--out", "run", "--steps", "4", "--device", "cpu"]).assert();
    resumed.code(0).stderr(contains("cuda sm_80"));
}

#[test]
fn doctor_examines_the_gpu() {
    let folder = tempfile::tempdir().unwrap();
    let examined = ddpm(folder.path(), "memory=64000000").args(["doctor", "--json"]).assert().code(0);
    let out = String::from_utf8(examined.get_output().stdout.clone()).unwrap();
    let json: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let checks = json["devices"][0]["checks"].as_array().unwrap();
    for precision in ["strict", "f32", "bf16"] {
        let of = checks.iter().filter(|check| check["precision"] == precision).count();
        assert!(of >= if precision == "strict" { 18 } else { 6 }, "{precision}: {out}");
    }
    assert!(json["devices"][0]["bandwidth"]["copy"].as_f64().unwrap() > 0.0, "{out}");
    assert!(!out.contains("DIFFERS"), "{out}");
}

#[test]
fn every_precision_runs_where_the_gpu_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let train = |settings: &str, precision: &str| {
        let mut command = ddpm(at, settings);
        command.args(["train", "--out", &format!("{precision}{settings}"), "--steps", "1", "--precision", precision]);
        command.args(TINY).assert()
    };
    train("", "bf16").code(0).stderr(contains("capability 8.0, bf16"));
    train("capability=75", "f32").code(0).stderr(contains("capability 7.5, f32"));
    let reason = "has compute capability 7.5, and products of bf16 need 8.0 or more";
    train("capability=75", "bf16").code(2).stderr(contains(reason));
    let bench = ["bench", "--preset", "digits", "--quick", "--precision", "bf16", "--json"];
    let measured = ddpm(at, "").args(bench).args(TINY).assert().code(0);
    let out = String::from_utf8(measured.get_output().stdout.clone()).unwrap();
    let json: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert!(json["train_images_per_s"].as_f64().unwrap() > 0.0, "{out}");
}

#[test]
fn what_the_driver_refuses_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let train = |settings: &str| {
        let mut command = ddpm(folder.path(), settings);
        command.args(["train", "--out", "run", "--steps", "1"]).args(TINY);
        let failed = command.assert().code(1);
        let error = String::from_utf8(failed.get_output().stderr.clone()).unwrap();
        assert!(!error.contains("panicked") && !folder.path().join("run/checkpoints/step-000001").exists(), "{error}");
        let _ = std::fs::remove_dir_all(folder.path().join("run"));
        error
    };
    for (settings, expected) in [
        ("devices=0", "no CUDA device: the driver is there, but it finds no device"),
        ("driver=11040", "no CUDA device: the driver is one of CUDA 11.4, and 11.8 (driver 520) or later is needed"),
        ("capability=70", "has compute capability 7.0, and 7.5 or more is needed"),
        ("ptx=0", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
        ("memory=100000", "CUDA_ERROR_OUT_OF_MEMORY"),
        ("launches=40", "CUDA_ERROR_LAUNCH_FAILED"),
    ] {
        let error = train(settings);
        assert!(error.contains(expected), "{settings}: {error}");
    }
    // with the device left open the CPU goes on, and says why
    let mut open = ddpm(folder.path(), "driver=11040");
    let tiny: Vec<_> = TINY.iter().map(|&a| if a == "cuda" { "auto" } else { a }).collect();
    let went_on = open.args(["train", "--out", "run", "--steps", "1"]).args(tiny).assert().code(0);
    went_on.stderr(contains("using the CPU: no CUDA device: the driver is one of CUDA 11.4"));
}
