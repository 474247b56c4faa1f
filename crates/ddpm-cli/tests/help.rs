//! What the program says about itself, and how wrong usage ends.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use assert_cmd::{Command, cargo::cargo_bin_cmd};
use predicates::{prelude::*, str::contains};

fn ddpm() -> Command {
    cargo_bin_cmd!("ddpm")
}

const COMMANDS: [&str; 18] = [
    "train",
    "sample",
    "predict",
    "export",
    "info",
    "bench",
    "eval",
    "config",
    "completions",
    "doctor",
    "noise",
    "interpolate",
    "img2img",
    "inpaint",
    "invert",
    "nearest",
    "plot",
    "reproduce",
];

#[test]
fn help_names_every_command_and_shows_examples() {
    let mut all = ddpm().arg("--help").assert().code(0).stdout(contains("Examples:"));
    for command in COMMANDS {
        all = all.stdout(contains(command));
        ddpm().args([command, "--help"]).assert().code(0).stdout(contains("Usage:"));
    }
    for command in [
        "train",
        "sample",
        "predict",
        "export",
        "info",
        "bench",
        "config",
        "noise",
        "interpolate",
        "img2img",
        "inpaint",
        "invert",
        "nearest",
        "plot",
        "reproduce",
    ] {
        ddpm().args([command, "--help"]).assert().stdout(contains("Example"));
    }
    ddpm().arg("--version").assert().code(0).stdout(contains("ddpm "));
}

#[test]
fn help_is_there_at_once() {
    let best = (0..5)
        .map(|_| {
            let begun = Instant::now();
            ddpm().arg("--help").assert().code(0);
            begun.elapsed()
        })
        .min()
        .unwrap();
    // 20 ms is the promise; a busy machine gets some grace.
    assert!(best < Duration::from_millis(60), "{best:?}");
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_right() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage"),
        (&["trian"], "train"),
        (&["train", "--step", "3"], "--steps"),
        (&["train", "--steps", "x"], "invalid value"),
        (&["train", "--resume", "--init-from", "m"], "cannot be used with"),
        (&["train", "--device", "tpu"], "cuda:INDEX"),
        (&["train", "--threads", "0"], "1..=1024"),
        (&["sample"], "--out"),
        (&["sample", "m", "-n", "0", "--out", "x.png"], "1..="),
        (&["sample", "m", "--weights", "best", "--out", "x.png"], "ema"),
        (&["predict", "m", "--input", "x", "--timesteps", "t", "--output", "y", "--gradients", "g"], "--target"),
        (&["info"], "MODEL|PICTURE.png"),
        (&["eval", "quality", "m"], "fid"),
        (&["completions", "csh"], "bash"),
    ];
    for (args, part) in cases {
        ddpm().args(*args).assert().code(2).stderr(contains(*part)).stderr(contains("panicked").not());
    }
}

#[test]
fn what_has_no_engine_says_so() {
    for args in [&["reproduce", "table3"][..], &["reproduce", "fig10"]] {
        ddpm()
            .args(args)
            .assert()
            .code(2)
            .stderr(contains("is not built yet"))
            .stderr(contains("where: "))
            .stderr(contains("hint: "));
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let assert = ddpm().args(["completions", shell]).assert().code(0);
        assert.stdout(contains("img2img")).stdout(contains("micro-batch"));
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let program = cargo_bin_cmd!("ddpm").get_program().to_owned();
    let pipe = |args: &[&str]| {
        let mut child = std::process::Command::new(&program)
            .args(args)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // The reader is gone before the first word.
        drop(child.stdout.take());
        child.wait_with_output().unwrap()
    };
    for args in [&["config", "--preset", "digits"][..], &["completions", "bash"], &["--help"]] {
        let output = pipe(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn doctor_says_what_the_machine_has_and_that_it_has_no_gpu() {
    // where a GPU answers it is examined, and what is said then is for another test
    let without = |args: &[&str]| ddpm().env("CUDA_VISIBLE_DEVICES", "").args(args).assert().code(1);
    let said = without(&["doctor"]).stdout(contains("instruction sets"));
    said.stdout(contains("GPUs              none: no CUDA device")).stderr(contains("no CUDA device"));
    let out = String::from_utf8(without(&["doctor", "--json"]).get_output().stdout.clone()).unwrap();
    let json: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert!(json["cores"].as_u64().unwrap() >= 1 && json["gpus"] == 0);
}
