//! What people give a program by mistake: one clear message, an exit code of 1 or 2, nothing lost, never a panic.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use assert_cmd::cargo::cargo_bin_cmd;

use self::common::{TINY, copy_of, ddpm, fails, npy, works};

/// A folder with pictures `x.npy` and a trained run `run`, which no test changes.
fn shared() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        let values: Vec<f32> = (0..16 * 64).map(|i| ((i * 37) % 255) as f32 / 255.0).collect();
        npy(&folder.join("x.npy"), &[16, 8, 8, 1], &values);
        works(&folder, &[&["train", "--data", "x.npy", "--out", "run"], TINY].concat());
        folder
    })
}

/// A folder of one's own with a copy of the run.
fn copied() -> tempfile::TempDir {
    copy_of(shared())
}

fn train<'a>(data: &'a str, out: &'a str) -> Vec<&'a str> {
    [&["train", "--data", data, "--out", out], TINY].concat()
}

#[test]
fn data_that_cannot_be_learned_from() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fails(folder.path(), &train("nowhere", "r"), 1, &["nowhere", "no such"]);
    fs::create_dir(at("empty")).unwrap();
    fails(folder.path(), &train("empty", "r"), 1, &["empty"]);
    fs::write(at("junk.npz"), b"no array at all").unwrap();
    fails(folder.path(), &train("junk.npz", "r"), 1, &["junk.npz"]);
    npy(&at("whole.npy"), &[4, 8, 8, 1], &[0.5; 256]);
    let whole = fs::read(at("whole.npy")).unwrap();
    fs::write(at("half.npy"), &whole[..whole.len() / 2]).unwrap();
    fails(folder.path(), &train("half.npy", "r"), 1, &["half.npy"]);
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000, 4000, 4000, 3), }";
    let mut huge = b"\x93NUMPY\x01\x00".to_vec();
    huge.extend((header.len() as u16).to_le_bytes());
    huge.extend(header.as_bytes());
    fs::write(at("huge.npy"), huge).unwrap();
    fails(folder.path(), &train("huge.npy", "r"), 1, &["huge.npy"]);
    let mut values = [0.5; 256];
    values[77] = f32::NAN;
    npy(&at("nan.npy"), &[4, 8, 8, 1], &values);
    fails(folder.path(), &train("nan.npy", "r"), 1, &["nan.npy"]);
    fs::create_dir(at("pictures")).unwrap();
    fs::write(at("pictures/broken.png"), b"\x89PNG\r\n\x1a\nnot really").unwrap();
    fails(folder.path(), &train("pictures", "r"), 1, &["broken.png"]);
    npy(&at("few.npy"), &[2, 8, 8, 1], &[0.5; 128]);
    fails(folder.path(), &train("few.npy", "r"), 1, &["batch"]);
    assert!(!at("r").join("checkpoints").exists(), "nothing was begun");
}

#[test]
fn settings_that_make_no_sense() {
    let folder = shared();
    let with = |extra: &[&'static str]| -> Vec<&str> { [&train("x.npy", "unused")[..], extra].concat() };
    fails(folder, &with(&["--set", "optimiser.lrr=1"]), 2, &["optimiser.lr"]);
    fails(folder, &with(&["--set", "optimiser.lr=-1"]), 2, &["optimiser.lr", "above 0"]);
    fails(folder, &with(&["--batch", "0"]), 2, &["train.batch", "--batch"]);
    fails(folder, &with(&["--set", "data.size=7"]), 2, &["multiple of 2"]);
    fails(folder, &with(&["--set", "data.channels=2"]), 1, &["data.channels"]);
    fails(folder, &with(&["--set", "data.classes=true"]), 1, &["labels"]);
    fails(folder, &with(&["--set", "data.class_dropout=0.1"]), 2, &["data.class_dropout", "data.classes=true"]);
    fails(folder, &with(&["--set", "preview.autoguidance=2"]), 2, &["preview.autoguidance", "ema.early"]);
    let both = ["--set", "preview.autoguidance=2", "--set", "ema.early=1", "--set", "preview.guidance=2"];
    fails(folder, &with(&both), 2, &["preview.autoguidance", "preview.guidance = 2"]);
    fails(folder, &with(&["--set", "preview.sampler=dpm"]), 2, &["dpm++2m"]);
    fails(folder, &with(&["--micro-batch", "9"]), 2, &["train.micro_batch"]);
    fails(folder, &with(&["--stop-at", "0"]), 2, &["--stop-at"]);
    fails(folder, &with(&["--preset", "mnist"]), 2, &["digits"]);
    fails(folder, &["train", "--preset", "cifar10"], 2, &["--data"]);
    fails(folder, &with(&["--config", "missing.toml"]), 1, &["missing.toml"]);
    assert!(!folder.join("unused").exists());
}

#[test]
fn machines_that_are_not_there() {
    let folder = shared();
    fails(folder, &["sample", "run", "--out", "x.png", "--device", "cuda:99"], 1, &["cuda:99"]);
    let bf16 = ["sample", "run", "--out", "x.png", "--precision", "bf16", "--isa", "portable"];
    fails(folder, &bf16, 2, &["no products of bf16", "--precision f32"]);
    fails(folder, &["sample", "run", "--out", "x.png", "--isa", "mmx"], 2, &["portable"]);
}

#[test]
fn runs_that_are_taken_or_missing() {
    let folder = copied();
    let before = fs::read(folder.path().join("run/config.toml")).unwrap();
    fails(folder.path(), &train("x.npy", "run"), 1, &["holds a run already", "--resume"]);
    fails(folder.path(), &["train", "--resume", "--out", "none"], 1, &["none"]);
    fails(folder.path(), &["train", "--resume"], 1, &["runs"]);
    let resume = ["train", "--resume", "--out", "run", "--device", "cpu"];
    let seed = [&resume[..], &["--seed", "5"]].concat();
    fails(folder.path(), &seed, 2, &["train.seed: 0 -> 5"]);
    let lr = [&resume[..], &["--set", "optimiser.lr=0.5", "--set", "ema.decay=0.5"]].concat();
    fails(folder.path(), &lr, 2, &["optimiser.lr", "ema.decay"]);
    assert_eq!(fs::read(folder.path().join("run/config.toml")).unwrap(), before, "refusing changes nothing");
    // What may change does, and the run goes on.
    works(folder.path(), &[&resume[..], &["--steps", "3", "--set", "log.every=1"]].concat());
    assert!(folder.path().join("run/checkpoints/step-000003").is_dir());
    // A finished run has nothing to do.
    works(folder.path(), &resume);
}

#[test]
fn models_that_are_none_or_damaged() {
    let folder = copied();
    let at = |name: &str| folder.path().join(name);
    let sample =
        |model: &'static str| ["sample", model, "-n", "1", "--steps", "2", "--out", "y.npy", "--device", "cpu"];
    fails(folder.path(), &sample("nothing"), 1, &["nothing"]);
    fails(folder.path(), &sample("x.npy"), 1, &["x.npy"]);
    fails(folder.path(), &["info", "x.npy"], 1, &["x.npy"]);
    fs::create_dir(at("bare")).unwrap();
    fails(folder.path(), &sample("bare"), 1, &["bare", "diffusers"]);
    fs::create_dir(at("pickle")).unwrap();
    fs::write(at("pickle/config.json"), "{}").unwrap();
    fs::write(at("pickle/diffusion_pytorch_model.bin"), "").unwrap();
    fails(folder.path(), &sample("pickle"), 1, &["safetensors"]);
    fs::create_dir(at("odd")).unwrap();
    fs::write(at("odd/config.json"), r#"{"act_fn": "gelu"}"#).unwrap();
    fs::write(at("odd/diffusion_pytorch_model.safetensors"), "junk").unwrap();
    fails(folder.path(), &sample("odd"), 1, &["act_fn", "gelu"]);
    // The newest checkpoint is damaged: the one before serves, with a line that says so.
    let weights = at("run/checkpoints/step-000002/ema.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, &bytes).unwrap();
    ddpm(folder.path()).args(sample("run")).assert().success().stderr(predicates::str::contains("step-000002"));
    fails(folder.path(), &sample("run/checkpoints/step-000002"), 1, &["ema.safetensors", "damaged"]);
    fs::write(at("run/checkpoints/step-000001/state.json"), "{").unwrap();
    fails(folder.path(), &sample("run"), 1, &["damaged"]);
}

#[test]
fn samples_that_cannot_be_drawn() {
    let folder = copied();
    let sample = |extra: &[&'static str]| -> Vec<&str> {
        [&["sample", "run", "-n", "1", "--steps", "2", "--device", "cpu", "--out", "y.npy"][..], extra].concat()
    };
    fails(folder.path(), &sample(&["--sampler", "ddmp"]), 2, &["ddpm"]);
    fails(folder.path(), &sample(&["--spacing", "karras"]), 2, &["ddim visits time steps", "dpm++2m"]);
    fails(folder.path(), &sample(&["--churn=-1"]), 2, &["0 or more"]);
    fails(folder.path(), &sample(&["--threshold", "95"]), 2, &["0 to 1"]);
    fails(folder.path(), &sample(&["--guidance", "2"]), 2, &["no classes"]);
    fails(folder.path(), &sample(&["--guidance", "2", "--guidance-interval", "9..3"]), 2, &["the lower first"]);
    fails(folder.path(), &sample(&["--guidance", "nan"]), 2, &["finite"]);
    fails(folder.path(), &sample(&["--guidance", "2", "--guidance-rescale", "2"]), 2, &["0 to 1"]);
    fails(folder.path(), &sample(&["--class", "3"]), 2, &["no classes"]);
    fails(folder.path(), &sample(&["--eta", "2"]), 2, &["0 to 1"]);
    fails(folder.path(), &sample(&["--spacing", "random"]), 2, &["leading"]);
    fails(folder.path(), &["sample", "run", "--steps", "1001", "--out", "y.npy"], 2, &["1 to 1000"]);
    fails(folder.path(), &["sample", "run", "--out", "y.jpg"], 2, &[".jpg", ".png"]);
    npy(&folder.path().join("z.npy"), &[1, 8, 8, 3], &[0.0; 192]);
    fails(folder.path(), &sample(&["--noise", "z.npy"]), 1, &["channels"]);
    npy(&folder.path().join("z.npy"), &[1, 7, 8, 1], &[0.0; 56]);
    fails(folder.path(), &sample(&["--noise", "z.npy"]), 1, &["height"]);
    fs::write(folder.path().join("file"), "").unwrap();
    fails(folder.path(), &["sample", "run", "-n", "1", "--steps", "2", "--out", "file/y.npy"], 1, &["file"]);
    assert!(!folder.path().join("y.npy").exists());
}

#[test]
fn arrays_that_do_not_fit_the_network() {
    let folder = copied();
    let at = |name: &str| folder.path().join(name);
    npy(&at("t.npy"), &[16], &[5.0; 16]);
    npy(&at("late.npy"), &[1], &[1000.0]);
    npy(&at("three.npy"), &[3], &[1.0; 3]);
    npy(&at("flat.npy"), &[4], &[1.0; 4]);
    let predict = |extra: &[&'static str]| -> Vec<&str> {
        [&["predict", "run", "--output", "y.npy", "--device", "cpu"][..], extra].concat()
    };
    fails(folder.path(), &predict(&["--input", "none.npy", "--timesteps", "t.npy"]), 1, &["none.npy"]);
    fails(folder.path(), &predict(&["--input", "flat.npy", "--timesteps", "t.npy"]), 1, &["[N, H, W, C]"]);
    fails(folder.path(), &predict(&["--input", "x.npy", "--timesteps", "late.npy"]), 1, &["0 to 999"]);
    fails(folder.path(), &predict(&["--input", "x.npy", "--timesteps", "three.npy"]), 1, &["16"]);
    let wrong = predict(&["--input", "x.npy", "--timesteps", "t.npy", "--target", "flat.npy", "--gradients", "g.npz"]);
    fails(folder.path(), &wrong, 1, &["flat.npy"]);
    let classes = predict(&["--input", "x.npy", "--timesteps", "t.npy", "--classes", "t.npy"]);
    fails(folder.path(), &classes, 2, &["no classes"]);
    // And one that fits.
    let right = ["--input", "x.npy", "--timesteps", "t.npy", "--target", "x.npy", "--gradients", "g.npz", "--json"];
    let out = works(folder.path(), &predict(&right));
    let json: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert!(json["mse"].as_f64().unwrap() > 0.0);
    assert!(at("g.npz").is_file());
}

#[test]
fn exports_that_would_overwrite() {
    let folder = copied();
    fs::create_dir(folder.path().join("out")).unwrap();
    fs::write(folder.path().join("out/precious"), "x").unwrap();
    fails(folder.path(), &["export", "run", "--out", "out"], 1, &["already"]);
    works(folder.path(), &["export", "run", "--out", "hf"]);
    // Both forms of the model draw the same.
    for model in ["run", "hf", "hf/unet"] {
        let out = format!("{}.npy", model.replace('/', "-"));
        let args = ["sample", model, "-n", "2", "--steps", "3", "--device", "cpu", "--out", &out];
        works(folder.path(), &args);
    }
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(read("run.npy") == read("hf.npy") && read("hf.npy") == read("hf-unet.npy"));
}

#[test]
fn pictures_say_what_they_were_made_with() {
    let folder = copied();
    works(
        folder.path(),
        &["sample", "run", "-n", "3", "--steps", "2", "--seed", "9", "--out", "all", "--device", "cpu"],
    );
    let out = works(folder.path(), &["info", "all/000002.png", "--json"]);
    let json: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((json["made_with"]["seed"].as_u64(), json["made_with"]["index"].as_u64()), (Some(9), Some(2)));
    works(folder.path(), &["sample", "run", "--steps", "2", "--out", "film.gif", "--device", "cpu"]);
    image::open(folder.path().join("film.gif")).unwrap();
    image::RgbImage::new(2, 2).save(folder.path().join("plain.png")).unwrap();
    fails(folder.path(), &["info", "plain.png"], 1, &["does not say"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_loses_nothing() {
    let folder = copied();
    let before = fs::read(folder.path().join("run/checkpoints/step-000002/weights.safetensors")).unwrap();
    // Every write to it fails as on a full disk.
    fails(
        folder.path(),
        &["sample", "run", "-n", "1", "--steps", "2", "--device", "cpu", "--out", "/dev/full/x.png"],
        1,
        &["/dev/full"],
    );
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let program = cargo_bin_cmd!("ddpm").get_program().to_owned();
    let output = std::process::Command::new(program).arg("config").stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(folder.path().join("run/checkpoints/step-000002/weights.safetensors")).unwrap(), before);
}

#[cfg(unix)]
#[test]
fn a_signal_saves_what_was_done() {
    let folder = copied();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let out = format!("run-{signal}");
        let steps = ["--set", "train.steps=1000000", "--set", "checkpoint.every=0"];
        let args: Vec<&str> = train("x.npy", &out).into_iter().filter(|arg| !["--steps", "2"].contains(arg)).collect();
        let child = std::process::Command::new(cargo_bin_cmd!("ddpm").get_program())
            .current_dir(folder.path())
            .args(args)
            .args(steps)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let metrics = folder.path().join(&out).join("metrics.jsonl");
        let begun = std::time::Instant::now();
        while fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() < 3) || !metrics.exists() {
            assert!(begun.elapsed().as_secs() < 60, "the run does not begin");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        std::process::Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains("saved in") && text.contains("--resume"), "{text}");
        let saved = fs::read_dir(folder.path().join(&out).join("checkpoints")).unwrap().count();
        assert_eq!(saved, 1, "{text}");
    }
}
