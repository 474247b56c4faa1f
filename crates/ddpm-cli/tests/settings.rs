//! Settings from the command line: files, `--set`, and the answers to mistakes.
#![allow(clippy::unwrap_used)]

use assert_cmd::{Command, cargo::cargo_bin_cmd};
use ddpm_train::{presets, settings::Settings};
use predicates::{prelude::*, str::contains};

fn ddpm() -> Command {
    cargo_bin_cmd!("ddpm")
}

fn config(args: &[&str]) -> String {
    let output = ddpm().arg("config").args(args).assert().code(0).get_output().clone();
    assert!(output.stderr.is_empty());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_printed_preset_reads_back_to_the_same_settings() {
    let folder = tempfile::tempdir().unwrap();
    for preset in presets::all() {
        let text = config(&["--preset", preset.name]);
        assert_eq!(Settings::from_toml(&text, "x").unwrap(), preset.settings());
        let path = folder.path().join("f.toml");
        std::fs::write(&path, &text).unwrap();
        // Over another preset it wins everywhere, so that it prints itself again.
        assert_eq!(config(&["--preset", "digits", "--config", path.to_str().unwrap()]), text);
    }
}

#[test]
fn later_words_win() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.toml");
    std::fs::write(&path, "[train]\nsteps = 7\nbatch = 8\n").unwrap();
    let text = config(&["--config", path.to_str().unwrap(), "--set", "train.steps=9", "--set", "train.steps=10"]);
    let settings = Settings::from_toml(&text, "x").unwrap();
    assert_eq!((settings.train.steps, settings.train.batch, settings.train.name.as_str()), (10, 8, "digits"));
}

#[test]
fn mistakes_end_with_2_one_message_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = folder.path().join("f.toml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let sets = [
        ("optimizer.lr=1", "did you mean `optimiser.lr`?"),
        ("train.stepz=1", "did you mean `train.steps`?"),
        ("train.steps=0", "train.steps = 0 is not allowed; allowed: a whole number from 1"),
        ("train.steps=ten", "allowed: a whole number"),
        ("optimiser.lr=-1", "above 0 and at most 10"),
        ("ema.decay=1", "at least 0 and below 1"),
        ("diffusion.schedule=linaer", "did you mean `linear`?"),
        ("diffusion.variance=learnt_range", "did you mean `learned_range`?"),
        ("data.size=30", "28x28 and 32x32"),
        ("network.norm_num_groups=7", "groups do not divide"),
        ("nonsense", "section.name=value"),
        ("=", "there is no setting"),
    ];
    for (set, part) in sets {
        ddpm().args(["config", "--set", set]).assert().code(2).stdout("").stderr(contains(part).and(three_lines()));
    }
    let files = [
        ("[train]\nsteps = \"many\"\n", "train.steps"),
        ("[train\n", "this is not TOML"),
        ("[trian]\nsteps = 1\n", "did you mean `train.steps`?"),
        ("\u{0}\u{1}", "this is not TOML"),
    ];
    for (text, part) in files {
        let path = file(text);
        ddpm()
            .args(["config", "--config", &path])
            .assert()
            .code(2)
            .stdout("")
            .stderr(contains(part).and(contains("f.toml")).and(three_lines()));
    }
    ddpm().args(["config", "--config", "no/such.toml"]).assert().code(1).stderr(contains("no/such.toml"));
    ddpm().args(["config", "--preset", "cifar"]).assert().code(2).stderr(contains("did you mean `cifar10`?"));
}

/// One line what, one line where, one line what to do next.
fn three_lines() -> impl Predicate<str> {
    predicate::function(|text: &str| {
        let lines: Vec<_> = text.lines().collect();
        lines.len() == 3
            && lines[0].starts_with("error: ")
            && lines[1].starts_with("where: ")
            && lines[2].starts_with("hint: ")
    })
}
