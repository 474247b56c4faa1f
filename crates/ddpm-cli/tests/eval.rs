//! `ddpm eval`: its numbers' form, and what it says to what it cannot measure.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use self::common::{TINY, copy_of, fails, npy, works};

const DIFFUSERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/pipeline");

/// A folder with pictures `x.npy`, a run on them, and a run on digits; no test changes them.
fn shared() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        let values: Vec<f32> = (0..20 * 64).map(|i| ((i * 37) % 255) as f32 / 255.0).collect();
        npy(&folder.join("x.npy"), &[20, 8, 8, 1], &values);
        let few = ["--set", "diffusion.timesteps=20", "--set", "preview.steps=5"];
        works(&folder, &[&["train", "--data", "x.npy", "--out", "run"], TINY, &few].concat());
        let digits = ["data.size=28", "data.holdout=0.99", "data.classes=true", "eval.every=2", "eval.count=12"];
        let digits = digits.map(|change| ["--set", change]).concat();
        works(&folder, &[&["train", "--out", "digits"], TINY, &few, &digits].concat());
        folder
    })
}

/// The numbers of a measure's JSON.
fn measured(args: &[&str]) -> serde_json::Value {
    let text = works(shared(), &[&["eval"], args, &["--json", "--device", "cpu"]].concat());
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

fn number(value: &serde_json::Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {value}"))
}

#[test]
fn likelihoods_add_up_and_do_not_depend_on_batches_and_threads() {
    let curve = shared().join("curve.csv");
    let whole = measured(&["nll", "run", "-n", "2", "--curve", "curve.csv"]);
    let sum = number(&whole, "prior") + number(&whole, "kl") + number(&whole, "decoder");
    assert!((number(&whole, "bits_per_dim") - sum).abs() < 1e-9 && sum > 0.0, "{whole}");
    assert_eq!(number(&whole, "n"), 2.0);
    let rows = fs::read_to_string(curve).unwrap();
    assert_eq!(rows.lines().count(), 21, "a row for each of 20 time steps: {rows}");
    let mut apart = measured(&["nll", "run", "-n", "2", "--batch", "1", "--threads", "1"]);
    apart["curve"] = whole["curve"].clone();
    assert_eq!(whole, apart);
    measured(&["nll", "run", "-n", "1", "--curve", "curve.png"]);
    assert!(shared().join("curve.png").exists());
    measured(&["nll", "run", "-n", "1", "--curve", "curve.svg"]);
    let svg = fs::read_to_string(shared().join("curve.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("class=\"curve\"") && svg.contains("bits per dimension"), "{svg}");
    let other = measured(&["nll", DIFFUSERS, "-n", "1", "--data", &tiny_rgb()]);
    assert!(number(&other, "bits_per_dim").is_finite());
    let ode = measured(&["nll", "run", "--ode", "-n", "1"]);
    assert!(number(&ode, "bits_per_dim").is_finite() && number(&ode, "evaluations") > 6.0, "{ode}");
}

#[test]
fn learned_variances_have_likelihoods() {
    for variance in ["learned", "learned_range"] {
        let folder = copy_of(shared());
        let set = format!("diffusion.variance={variance}");
        let few = ["--set", "diffusion.timesteps=20", "--set", &set];
        works(folder.path(), &[&["train", "--data", "x.npy", "--out", "says"], TINY, &few].concat());
        let found = |args: &[&str]| -> serde_json::Value {
            let text = works(folder.path(), &[&["eval", "nll", "says", "--json", "--device", "cpu"], args].concat());
            serde_json::from_str(text.lines().last().unwrap()).unwrap()
        };
        let whole = found(&["-n", "2"]);
        let sum = number(&whole, "prior") + number(&whole, "kl") + number(&whole, "decoder");
        assert!((number(&whole, "bits_per_dim") - sum).abs() < 1e-9 && sum > 0.0, "{variance}: {whole}");
        assert_eq!(found(&["-n", "2", "--batch", "1", "--threads", "1"]), whole, "{variance}");
        let ode = found(&["-n", "1", "--ode"]);
        assert!(number(&ode, "bits_per_dim").is_finite() && number(&ode, "evaluations") > 6.0, "{variance}: {ode}");
    }
}

/// Pictures of the diffusers folder's kind.
fn tiny_rgb() -> String {
    let path = shared().join("rgb.npy");
    npy(&path, &[4, 8, 8, 3], &[0.25; 4 * 192]);
    path.display().to_string()
}

#[test]
fn scores_have_their_keys_and_statistics_can_be_kept() {
    let fid =
        measured(&["fid", "digits", "-n", "12", "--steps", "2", "--split", "train", "--write-reference", "held.npz"]);
    assert!(number(&fid, "fid") > 0.0, "{fid}");
    assert_eq!((number(&fid, "n"), number(&fid, "n_data")), (12.0, 100.0));
    assert_eq!((fid["features"].as_str(), fid["resize"].as_str()), (Some("ddpm-digits-classifier"), Some("none")));
    let again = measured(&["fid", "digits", "-n", "12", "--steps", "2", "--batch", "5", "--reference", "held.npz"]);
    assert_eq!(again["fid"], fid["fid"], "neither the batch nor the file changes a bit");
    for (measure, keys) in [
        ("kid", &["kid", "kid_std"][..]),
        ("is", &["is", "is_std", "agreement"]),
        ("pr", &["precision", "recall", "density", "coverage"]),
        ("sfid", &["sfid"]),
    ] {
        let found = measured(&[measure, "digits", "-n", "12", "--steps", "2", "--split", "train"]);
        for key in keys {
            number(&found, key);
        }
    }
    let metrics = fs::read_to_string(shared().join("digits/metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    assert!(number(&last, "fid") > 0.0 && number(&last, "is") >= 1.0, "scores while training: {last}");
}

#[test]
fn what_cannot_be_measured_says_so() {
    let folder = shared();
    let eval = |args: &[&'static str], code, parts: &[&str]| {
        fails(folder, &[&["eval"], args, &["--device", "cpu"]].concat(), code, parts);
    };
    eval(&["nll", "nowhere"], 1, &["nowhere"]);
    eval(&["nll", DIFFUSERS], 2, &["--data PATH"]);
    eval(&["nll", DIFFUSERS, "--data", "nowhere.npz"], 1, &["nowhere.npz"]);
    eval(&["nll", DIFFUSERS, "--data", "x.npy", "--split", "heldout"], 2, &["held out"]);
    eval(&["nll", "run", "--curve", "curve.jpg"], 2, &["curve.jpg", ".csv"]);
    eval(&["nll", "run", "-n", "1", "--curve", "x.npy/curve.svg"], 1, &["x.npy/curve.svg"]);
    eval(&["nll", "run", "--features", "x.safetensors"], 2, &["--features"]);
    eval(&["fid", "run"], 2, &["8x8x1", "--features"]);
    eval(&["fid", "run", "--features", "nowhere.safetensors"], 1, &["nowhere.safetensors"]);
    eval(&["fid", "run", "--features", "x.npy"], 1, &["safetensors", "x.npy"]);
    eval(&["fid", "digits", "--reference", "x.npy"], 1, &["x.npy"]);
    eval(&["kid", "digits", "--reference", "held.npz"], 2, &["--reference"]);
    eval(&["fid", "digits", "--ode"], 2, &["--ode"]);
}
