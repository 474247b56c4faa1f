//! `ddpm reproduce`: tables and figures of the paper by tiny networks, gone on with, and what cannot be made.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use serde_json::Value;

use self::common::{copy_of, fails, tiny_network, works};

/// Runs a part and returns what it says and its JSON.
fn reproduce(folder: &Path, args: &[&str]) -> (String, Value) {
    let json = works(folder, &[&["reproduce"], args, &["--json", "--threads", "1"]].concat());
    let said = works(folder, &[&["reproduce"], args, &["--threads", "1"]].concat());
    (said, serde_json::from_str(json.lines().last().unwrap()).unwrap())
}

/// A folder with pictures and `fig/model`, a run on them of 30 steps that was stopped after 20.
fn drawn() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        common::pictures(&folder);
        let data = ["train", "--data", "pictures", "--out", "fig/model", "--steps", "30", "--stop-at", "20"];
        works(
            &folder,
            &[&data[..], &tiny_network(), &["--set", "diffusion.timesteps=50", "--set", "data.holdout=0.3"]].concat(),
        );
        folder
    })
}

#[test]
fn figures_are_drawn_with_a_run_that_is_gone_on_with() {
    let folder = copy_of(drawn());
    let at = |name: &str| folder.path().join("fig").join(name);
    for (name, columns, rows) in [("fig4", 8, 8), ("fig6", 12, 5), ("fig7", 8, 4), ("fig8", 13, 5), ("fig9", 13, 9)] {
        let said = works(folder.path(), &["reproduce", name, "--out", "fig", "--device", "cpu", "--threads", "1"]);
        assert!(said.contains("paper  figure") && said.contains("30 steps of 4"), "{said}");
        let path = at(&format!("{name}.png"));
        assert_eq!(image::image_dimensions(&path).unwrap(), (8 * columns, 8 * rows), "{name}");
    }
    let first = fs::read(at("fig6.png")).unwrap();
    works(folder.path(), &["reproduce", "fig6", "--out", "fig", "--device", "cpu"]);
    assert!(fs::read(at("fig6.png")).unwrap() == first, "the same picture again");
    // Of one x_t of figure 7, pictures differ more where there is more noise.
    let rows = image::open(at("fig7.png")).unwrap().into_luma8();
    let apart = |row: u32| -> u32 {
        let pixel = |sample: u32, x: u32, y: u32| rows.get_pixel(8 * (2 + sample) + x, 8 * row + y).0[0];
        (0..64).map(|i| u32::from(pixel(0, i % 8, i / 8).abs_diff(pixel(1, i % 8, i / 8)))).sum()
    };
    assert!(apart(0) > apart(3), "{} {}", apart(0), apart(3));
    // By no step, figure 9 mixes pixels; by all, a mix is no longer near them.
    let rows = image::open(at("fig9.png")).unwrap().into_luma8();
    let off = |row: u32, column: u32, share: f64| -> f64 {
        let pixel = |column: u32, i: u32| f64::from(rows.get_pixel(8 * column + i % 8, 8 * row + i / 8).0[0]);
        let off = |i| (pixel(column, i) - (1.0 - share) * pixel(0, i) - share * pixel(12, i)).abs();
        (0..64).map(off).fold(0.0, f64::max)
    };
    for i in 0..=10 {
        let share = f64::from(i) / 10.0;
        assert!(off(8, 1 + i, share) <= 1.0, "λ = {share}: {}", off(8, 1 + i, share));
    }
    assert!(off(0, 6, 0.5) > 8.0, "{}", off(0, 6, 0.5));
}

#[test]
fn as_many_steps_are_made_as_fit_and_that_is_decided_once() {
    let folder = copy_of(drawn());
    let metrics = folder.path().join("fig/model/metrics.jsonl");
    // The speed that the first steps are said to have had.
    let slow = |speed: f64| {
        let text = fs::read_to_string(&metrics).unwrap();
        let line = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line["images_per_s"] = speed.into();
            line.to_string() + "\n"
        };
        fs::write(&metrics, text.lines().map(line).collect::<String>()).unwrap();
    };
    let said = || {
        let args = ["reproduce", "fig4", "--out", "fig", "--budget", "1", "--steps", "2", "--device", "cpu"];
        works(folder.path(), &args)
    };
    // 60 s of 1.7 images/s are 25 steps of 4.
    slow(1.7);
    assert!(said().contains("25 steps of 4"), "{}", said());
    slow(0.001);
    assert!(said().contains("25 steps of 4"), "{}", said());
}

#[test]
fn rate_and_distortion_are_measured_once() {
    let folder = copy_of(drawn());
    let at = |name: &str| folder.path().join("fig").join(name);
    let flags = ["--out", "fig", "--device", "cpu", "--nll-count", "1"];
    let (said, found) = reproduce(folder.path(), &[&["fig5"], &flags[..]].concat());
    assert!(said.contains("bits/dim") && said.contains("table 4 as dots"), "{said}");
    let csv = fs::read_to_string(at("fig5.csv")).unwrap();
    assert_eq!(csv.lines().count(), 51, "a row for each of 50 time steps: {csv}");
    let svg = fs::read_to_string(at("fig5.svg")).unwrap();
    for (part, times) in [("class=\"frame\"", 3), ("data-name=\"here\"", 3), (">rate (bits/dim)</text>", 2)] {
        assert_eq!(svg.matches(part).count(), times, "{part}: {svg}");
    }
    assert!(at("fig5.png").exists());

    let (said, table) = reproduce(folder.path(), &[&["table4"], &flags[..]].concat());
    assert!(said.contains("| 50 | 1.77581 |") && said.contains("| 5 | 0.00000 |"), "{said}");
    assert_eq!(table["rows"].as_array().unwrap().len(), 10);
    for key in ["rate", "rmse"] {
        assert_eq!(table["rows"][0][key], found[key], "the end of both");
    }
    assert_eq!(fs::read_to_string(at("table4.md")).unwrap().trim_end(), said[said.find("# ").unwrap()..].trim_end());
    // What was kept answers; for another number of pictures it does not.
    let kept = fs::read_to_string(at("rates-kept.json")).unwrap();
    let mut changed: Value = serde_json::from_str(&kept).unwrap();
    changed["likelihood"]["found"]["decoder"] = 123.0.into();
    fs::write(at("rates-kept.json"), changed.to_string()).unwrap();
    assert!(reproduce(folder.path(), &[&["table4"], &flags[..]].concat()).0.contains("distortion 123.000"));
    let other = ["reproduce", "table4", "--out", "fig", "--device", "cpu", "--nll-count", "2", "--json"];
    assert!(!works(folder.path(), &other).contains("123.000"));
}

/// Flags of the tables: tiny networks on the program's digits.
fn on_digits() -> Vec<&'static str> {
    let few = ["data.size=28", "data.holdout=0.99", "diffusion.timesteps=10", "train.steps=3"];
    let mut flags = tiny_network();
    for setting in few {
        flags.extend(["--set", setting]);
    }
    flags.extend(["--out", "tables", "-n", "12", "--nll-count", "2"]);
    flags
}

#[test]
fn table_2_goes_on_where_it_was_and_table_1_takes_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join("tables").join(name);
    let table2 = || reproduce(folder.path(), &[&["table2"], &on_digits()[..]].concat());
    let (said, first) = table2();
    for part in
        ["| μ̃ | L, learned Σ | 7.28 ± 0.10 |", "| ε | ‖ε − ε_θ‖² (L_simple) | 9.46 ± 0.11 |", "digits, 3 steps of 4"]
    {
        assert!(said.contains(part), "no {part} in {said}");
    }
    let rows = first["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 6);
    for row in rows {
        assert!(row["here"]["fid"].as_f64().unwrap() > 0.0 && row["here"]["is"].as_f64().unwrap() >= 1.0, "{row}");
        assert_eq!(
            row["paper"]["fid"].is_null(),
            ["mean-simple", "eps-vlb-learned"].contains(&row["row"].as_str().unwrap())
        );
    }
    assert!(said.contains("unstable in the paper, here it has"), "{said}");
    assert!(first["held_out"]["fid"].as_f64().unwrap() > 0.0);

    // Of a model that is gone both model and scores are made again, the same; the others stay.
    let kept = at("table2/kept.json");
    let mut changed: Value = serde_json::from_str(&fs::read_to_string(&kept).unwrap()).unwrap();
    changed.as_object_mut().unwrap().remove("eps-simple");
    changed["mean-simple"]["found"]["fid"] = 777.0.into();
    fs::write(&kept, changed.to_string()).unwrap();
    fs::remove_dir_all(at("table2/eps-simple")).unwrap();
    let (_, again) = table2();
    assert_eq!(again["rows"][5], first["rows"][5]);
    assert_eq!(again["rows"][2]["here"]["fid"], 777.0);

    let model = at("table2/eps-simple").display().to_string();
    let flags = ["table1", "--model", &model, "-n", "12", "--nll-count", "2", "--out", "one", "--device", "cpu"];
    let (said, found) = reproduce(folder.path(), &flags);
    assert!(said.contains("| paper, CIFAR-10, L_simple | 9.46 ± 0.11 | 3.17 | ≤ 3.75 (3.72) |"), "{said}");
    assert_eq!(found["model"], first["rows"][5]["here"]);
    assert!(found["test"]["bits_per_dim"].as_f64().unwrap() > 0.0 && found["train"]["n"] == 2);
    assert!(said.contains("held out costs"), "{said}");
}

#[test]
fn training_that_diverges_leaves_a_dash() {
    let folder = tempfile::tempdir().unwrap();
    // Weights are multiplied by -99 in each step.
    let wild = ["optimiser.lr=10", "optimiser.weight_decay=10", "optimiser.warmup=0", "train.steps=20"];
    let wild: Vec<&str> = wild.into_iter().flat_map(|setting| ["--set", setting]).collect();
    let (said, found) = reproduce(folder.path(), &[&["table2"], &on_digits()[..], &wild].concat());
    let row = said.lines().find(|line| line.starts_with("| ε | ‖")).unwrap();
    assert_eq!(row, "| ε | ‖ε − ε_θ‖² (L_simple) | 9.46 ± 0.11 | – | 3.17 | – |", "{said}");
    assert!(found["rows"][5]["here"].is_null() && said.contains("here it was unstable"), "{said}");
}

#[test]
fn what_cannot_be_reproduced_says_so() {
    let folder = copy_of(drawn());
    let no = |args: &[&str], code, parts: &[&str]| {
        fails(folder.path(), &[&["reproduce"], args, &["--device", "cpu"]].concat(), code, parts);
        assert!(!folder.path().join("runs").join("reproduce-digits").join("model").exists(), "nothing was trained");
    };
    no(&["fig66"], 2, &["no table or figure `fig66`", "table1, table2, table4, fig4, fig5, fig6"]);
    no(&["table3"], 2, &["not built yet"]);
    no(&["fig6", "--preset", "digit"], 2, &["did you mean `digits`?"]);
    no(&["table2", "--preset", "emoji"], 2, &["28x28x1", "32x32x3", "--features"]);
    no(&["table1", "--preset", "cifar10", "--data", "pictures"], 2, &["28x28x1", "--features"]);
    no(&["table1", "--features", "nowhere.safetensors"], 1, &["nowhere.safetensors"]);
    no(&["table1", "--features", "pictures/0.png"], 1, &["pictures/0.png", "safetensors"]);
    no(&["table1", "--set", "data.sizes=28"], 2, &["data.size"]);
    no(&["table1", "--model", "fig/model", "--out", "new"], 2, &["28x28x1", "8x8x1", "--features"]);
    no(&["table2", "--model", "fig/model", "--out", "new"], 2, &["--model"]);
    no(&["fig4", "--model", "nowhere", "--out", "new"], 1, &["nowhere"]);
    no(&["fig4", "--model", "pictures", "--out", "new"], 1, &["pictures"]);
    no(&["fig4", "--out", "pictures/0.png/new"], 1, &["pictures/0.png/new", "folder"]);
    no(&["fig6", "--preset", "cifar10", "--out", "new"], 2, &["no data of its own", "--data"]);
    no(&["fig4", "--model", "fig/model", "--steps", "51", "--out", "new"], 2, &["1 to 50"]);
    let both = ["reproduce", "fig4", "--model", "fig/model", "--preset", "emoji"];
    let said = common::ddpm(folder.path()).args(both).output().unwrap();
    assert_eq!(said.status.code(), Some(2));
}
