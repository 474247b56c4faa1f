//! Drawing with classes, guidance and every sampler: what comes out, and one clear message where nothing can.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use predicates::str::contains;

use self::common::{TINY, copy_of, ddpm, fails, works};

/// Settings with which two steps change what the network says.
const LIVELY: &[&str] =
    &["--set", "ema.decay=0", "--set", "optimiser.lr=0.01", "--set", "optimiser.warmup=0", "--set", "data.holdout=0"];

/// A folder with pictures of two classes, a run that learned them (`run`), one that was also shown them without their class
/// (`dropped`), one that knows no classes (`plain`), and one that keeps its weights of the first step, too (`early`).
fn shared() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        for (class, dark) in [("cats, black", 40), ("dogs", 200)] {
            fs::create_dir_all(folder.join("pictures").join(class)).unwrap();
            for i in 0..8u8 {
                let picture = image::GrayImage::from_fn(8, 8, |x, y| image::Luma([dark + i + 4 * (x as u8) + y as u8]));
                picture.save(folder.join("pictures").join(class).join(format!("{i}.png"))).unwrap();
            }
        }
        let train = |out, extra: &[&str]| {
            let data = ["train", "--data", "pictures", "--out", out];
            works(&folder, &[&data[..], TINY, LIVELY, extra].concat());
        };
        train("run", &["--set", "data.classes=true"]);
        train("dropped", &["--set", "data.classes=true", "--set", "data.class_dropout=0.5"]);
        train("plain", &[]);
        train("early", &["--set", "ema.early=1"]);
        folder
    })
}

/// `ddpm sample MODEL --out OUT` in three steps.
fn sample<'a>(model: &'a str, out: &'a str, extra: &[&'a str]) -> Vec<&'a str> {
    [&["sample", model, "--steps", "3", "--device", "cpu", "--out", out][..], extra].concat()
}

fn size(path: &Path) -> (u32, u32) {
    image::image_dimensions(path).unwrap()
}

#[test]
fn every_sampler_draws_and_batches_change_nothing() {
    let folder = copy_of(shared());
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    for sampler in ddpm_train::samplers::SAMPLERS {
        let with = ["--sampler", sampler.name, "-n", "3", "--eta", "0.5", "--churn", "1"];
        works(folder.path(), &sample("plain", "a.npy", &with));
        works(folder.path(), &sample("plain", "b.npy", &[&with[..], &["--batch", "2"]].concat()));
        assert!(read("a.npy") == read("b.npy"), "{}", sampler.name);
    }
    for spacing in ["karras", "exponential", "linear", "trailing", "leading"] {
        works(folder.path(), &sample("plain", "c.npy", &["--sampler", "dpm++2m", "--spacing", spacing, "-n", "1"]));
    }
    works(folder.path(), &sample("plain", "d.npy", &["--threshold", "0.9", "-n", "1"]));
    for film in ["xt", "x0"] {
        works(folder.path(), &sample("plain", "f.gif", &["--film", film, "--sampler", "euler"]));
    }
}

#[test]
fn classes_are_drawn_one_several_or_all() {
    let folder = copy_of(shared());
    let at = |name: &str| folder.path().join(name);
    let read = |name: &str| fs::read(at(name)).unwrap();
    works(folder.path(), &sample("run", "all.png", &["--class", "all"]));
    assert_eq!(size(&at("all.png")), (2 * 8, 8 * 8), "a column for each class, 16 pictures");
    works(folder.path(), &sample("run", "turns.npy", &["-n", "2"]));
    for both in ["all", "0,1", "0,dogs"] {
        works(folder.path(), &sample("run", "both.npy", &["-n", "2", "--class", both]));
        assert!(read("both.npy") == read("turns.npy"), "{both}");
    }
    works(folder.path(), &sample("run", "one.npy", &["-n", "2", "--class", "Cats, black"]));
    assert!(read("one.npy") != read("turns.npy"));
    fails(folder.path(), &sample("run", "x.npy", &["--class", "mice"]), 2, &["no class `mice`", "1 dogs"]);
    fails(folder.path(), &sample("run", "x.npy", &["--class", "0,7"]), 2, &["0 to 1"]);
    fails(folder.path(), &sample("run", "x.npy", &["--class", "none"]), 2, &["without a class"]);
    fails(folder.path(), &sample("plain", "x.npy", &["--class", "all"]), 2, &["no classes"]);
}

#[test]
fn autoguidance_leads_away_from_a_weaker_model() {
    let folder = copy_of(shared());
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    let weaker = |model, flags: &[&'static str]| {
        let with = [&["--autoguidance", "3"][..], flags].concat();
        sample(model, "x.npy", &with)
    };
    fails(folder.path(), &weaker("plain", &[]), 1, &["no weights of an earlier step", "ema.early"]);
    fails(folder.path(), &weaker("plain", &["--weaker", "dropped"]), 1, &["led away from", "classes are others"]);
    fails(folder.path(), &weaker("plain", &["--weaker", "nothing"]), 1, &["nothing of that name"]);
    let refused = |args: Vec<&str>| ddpm(folder.path()).args(args).assert().code(2);
    refused(weaker("early", &["--guidance", "2"])).stderr(contains("cannot be used with"));
    refused(sample("early", "x.npy", &["--weaker", "plain"])).stderr(contains("--autoguidance"));
    fails(folder.path(), &sample("plain", "x.npy", &["--weights", "early"]), 1, &["no weights of an earlier step"]);

    let drawn = |out, extra: &[&str]| {
        works(folder.path(), &sample("early", "x.npy", &[&["-n", "2"][..], extra].concat()));
        fs::rename(folder.path().join("x.npy"), folder.path().join(out)).unwrap();
    };
    drawn("plain.npy", &[]);
    drawn("three.npy", &["--autoguidance", "3"]);
    assert!(read("plain.npy") != read("three.npy"));
    drawn("one.npy", &["--autoguidance", "1"]);
    assert!(read("plain.npy") == read("one.npy"), "1 is the model alone");
    drawn("zero.npy", &["--autoguidance", "0"]);
    drawn("early.npy", &["--weights", "early"]);
    assert!(read("zero.npy") == read("early.npy"), "0 is the weaker one alone");
    drawn("batch.npy", &["--autoguidance", "3", "--batch", "1"]);
    assert!(read("three.npy") == read("batch.npy"));
    drawn("never.npy", &["--autoguidance", "3", "--guidance-interval", "990..1000"]);
    assert!(read("plain.npy") == read("never.npy"), "no step lies in the interval");

    // The same weights as a model of their own.
    works(folder.path(), &["export", "early", "--weights", "early", "--out", "hf"]);
    drawn("named.npy", &["--autoguidance", "3", "--weaker", "hf"]);
    assert!(read("three.npy") == read("named.npy"));
}

#[test]
fn guidance_needs_a_model_that_knows_no_class() {
    let folder = copy_of(shared());
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    fails(folder.path(), &sample("run", "x.npy", &["--guidance", "3"]), 2, &["data.class_dropout"]);
    fails(folder.path(), &sample("plain", "x.npy", &["--guidance", "3"]), 2, &["no classes"]);
    fails(folder.path(), &sample("run", "x.npy", &["--guidance", "3", "--null-class", "2"]), 2, &["0 to 1"]);

    let drawn = |out, extra: &[&str]| {
        let with = [&["-n", "2", "--class", "dogs"][..], extra].concat();
        works(folder.path(), &sample("dropped", "x.npy", &with));
        fs::rename(folder.path().join("x.npy"), folder.path().join(out)).unwrap();
    };
    drawn("plain.npy", &[]);
    drawn("one.npy", &["--guidance", "1"]);
    assert!(read("plain.npy") == read("one.npy"), "guidance 1 is the class alone");
    drawn("three.npy", &["--guidance", "3"]);
    assert!(read("plain.npy") != read("three.npy"));
    drawn("batch.npy", &["--guidance", "3", "--batch", "1"]);
    assert!(read("three.npy") == read("batch.npy"));
    drawn("never.npy", &["--guidance", "3", "--guidance-interval", "990..1000"]);
    assert!(read("plain.npy") == read("never.npy"), "no step lies in the interval");
    drawn("scaled.npy", &["--guidance", "3", "--guidance-rescale", "0.7"]);
    assert!(read("three.npy") != read("scaled.npy"));
    // Without guidance towards anything: no class at all.
    drawn("zero.npy", &["--guidance", "0"]);
    works(folder.path(), &sample("dropped", "none.npy", &["-n", "2", "--class", "none"]));
    assert!(read("none.npy") == read("zero.npy"));

    // An exported folder still knows names and the class that stands for none.
    works(folder.path(), &["export", "dropped", "--out", "hf"]);
    works(folder.path(), &sample("hf", "hf.npy", &["-n", "2", "--class", "dogs", "--guidance", "3"]));
    assert!(read("hf.npy") == read("three.npy"));
}
