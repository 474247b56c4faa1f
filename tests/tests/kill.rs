//! SIGKILL at random instants of a run that saves every step: every resume loads, and the end is that of an undisturbed run.
//!
//! Four kills by default, sixty under `DDPM_TORTURE=full`.
#![allow(clippy::unwrap_used)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ddpm_tensor::random::{Address, Purpose};
use ddpm_tests::{assert_same_files, torture};

const STEPS: &str = "40";

/// The program, built as these tests were.
fn program() -> PathBuf {
    // target/PROFILE/deps/kill-HASH
    let test = env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let name = match profile.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        other => other,
    };
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--package", "ddpm-cli", "--bin", "ddpm", "--profile", name]);
    build.current_dir(env!("CARGO_MANIFEST_DIR")).arg("--target-dir").arg(profile.parent().unwrap());
    assert!(build.status().unwrap().success());
    profile.join(format!("ddpm{}", env::consts::EXE_SUFFIX))
}

/// A run of a network so small that the time goes into saving.
fn train(program: &Path, out: &Path, resume: bool) -> Child {
    let mut command = Command::new(program);
    command.args(["train", "--out"]).arg(out);
    if resume {
        command.arg("--resume");
    } else {
        command.args(["--preset", "digits", "--steps", STEPS, "--batch", "4", "--seed", "3"]);
        for set in [
            "data.size=8",
            "network.block_out_channels=[8,8,8]",
            "network.norm_num_groups=4",
            "network.layers_per_block=1",
            "checkpoint.every=1",
            "checkpoint.keep=2",
            "preview.every=0",
            "preview.count=1",
            "preview.steps=1",
            "preview.heldout=4",
        ] {
            command.args(["--set", set]);
        }
    }
    command.args(["--quiet", "--device", "cpu", "--threads", "1"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn finish(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

#[test]
fn kills_at_random_instants_lose_nothing() {
    let program = program();
    let folder = tempfile::tempdir().unwrap();
    let (undisturbed, killed) = (folder.path().join("undisturbed"), folder.path().join("killed"));
    let started = Instant::now();
    finish(train(&program, &undisturbed, false));
    let whole = started.elapsed();

    let kills = if torture() { 60 } else { 4 };
    let random = Address::new(11, Purpose::Test);
    for kill in 0..kills {
        // A run that has ended before its kill begins anew.
        let mut child = train(&program, &killed, killed.join("config.toml").exists());
        let part = f64::from(random.at_sample(kill).uniforms(0)[0]);
        let limit = whole.mul_f64(part * 0.6) + Duration::from_millis(3);
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(300));
        }
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
        } else {
            finish(child);
            std::fs::remove_dir_all(&killed).unwrap();
        }
        let unfinished = |path: &Path| !path.join("config.toml").exists() && path.exists();
        if unfinished(&killed) {
            // Killed before there was a run to be taken up.
            std::fs::remove_dir_all(&killed).unwrap();
        }
    }
    finish(train(&program, &killed, killed.join("config.toml").exists()));
    let last = |run: &Path| run.join("checkpoints").join(format!("step-{:06}", STEPS.parse::<u64>().unwrap()));
    assert_same_files("killed and resumed", &last(&undisturbed), &last(&killed));
    let lines = std::fs::read_to_string(killed.join("metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count().to_string(), STEPS);
}
