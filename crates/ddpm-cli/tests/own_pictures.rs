//! What one can do with a model and a picture: what comes out, and one clear message where nothing can.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use self::common::{TINY, copy_of, ddpm, fails, npy, works};

/// A folder with pictures `a.png`, `b.png` (8x8), `wide.png` (30x20), masks, and a trained run `run`.
fn shared() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        let grey = |name: &str, width, height, value: fn(u32, u32) -> u8| {
            let picture = image::GrayImage::from_fn(width, height, |x, y| image::Luma([value(x, y)]));
            picture.save(folder.join(name)).unwrap();
        };
        grey("a.png", 8, 8, |x, y| (20 * x + 10 * y) as u8);
        grey("b.png", 8, 8, |x, y| (255 - 20 * x - 10 * y) as u8);
        grey("wide.png", 30, 20, |x, y| (8 * x + y) as u8);
        grey("half.png", 8, 8, |x, _| if x < 4 { 0 } else { 255 });
        grey("small.png", 4, 8, |_, _| 255);
        let values: Vec<f32> = (0..16 * 64).map(|i| ((i * 37) % 255) as f32 / 255.0).collect();
        npy(&folder.join("x.npy"), &[16, 8, 8, 1], &values);
        works(&folder, &[&["train", "--data", "x.npy", "--out", "run"], TINY].concat());
        folder
    })
}

fn size(path: &Path) -> (u32, u32) {
    image::image_dimensions(path).unwrap()
}

/// The numbers of an array, after its header.
fn values(path: &Path) -> Vec<f32> {
    let file = npyz::NpyFile::new(std::io::BufReader::new(fs::File::open(path).unwrap())).unwrap();
    file.into_vec().unwrap()
}

/// √(mean (a − b)²).
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (sum / a.len() as f64).sqrt()
}

/// `a.png` as a network sees it.
fn a() -> Vec<f32> {
    (0..64u32).map(|i| (20 * (i % 8) + 10 * (i / 8)) as f32 / 127.5 - 1.0).collect()
}

#[test]
fn a_picture_is_noised_step_by_step_and_at_once() {
    let folder = copy_of(shared());
    let at = |name: &str| folder.path().join(name);
    let noise =
        |extra: &[&'static str]| [&["noise", "wide.png", "--size", "30", "--device", "cpu"][..], extra].concat();
    let out = works(folder.path(), &noise(&["--out", "strip.png", "--count", "5"]));
    assert_eq!(size(&at("strip.png")), (5 * 30, 2 * 20));
    assert!(out.contains("   500") && out.contains("  1000"), "{out}");
    works(folder.path(), &noise(&["--out", "film.gif"]));
    let out = works(folder.path(), &noise(&["--out", "strip.npy", "--count", "3", "--json"]));
    let json: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let all = values(&at("strip.npy"));
    let part = |row: usize, i: usize| &all[(row * 3 + i) * 600..(row * 3 + i + 1) * 600];
    assert_eq!(part(0, 0), part(1, 0), "both begin with the picture");
    for (i, row) in json["rows"].as_array().unwrap().iter().enumerate() {
        let (signal, deviation) = (row["signal"].as_f64().unwrap(), row["noise"].as_f64().unwrap());
        for both in 0..2 {
            // What is left when the picture's share is taken away is noise of the deviation that is told.
            let scaled: Vec<f32> = part(0, 0).iter().map(|x| x * signal as f32).collect();
            let seen = distance(part(both, i), &scaled);
            assert!((seen - deviation).abs() <= 4.0 * deviation / 1200.0_f64.sqrt(), "{seen} of {deviation}");
        }
    }
    assert!(distance(part(0, 2), part(1, 2)) > 1.0, "their noises are two");

    fails(folder.path(), &["noise", "none.png", "--out", "s.png"], 1, &["none.png"]);
    fails(folder.path(), &["noise", "x.npy", "--out", "s.png"], 1, &["x.npy", "picture format"]);
    fails(folder.path(), &["noise", "a.png", "--out", "s.npz"], 2, &[".npy"]);
    fails(folder.path(), &["noise", "a.png", "--out", "s.png", "--schedule", "linaer"], 2, &["linear"]);
}

/// A command on the run, in four steps.
fn on_run<'a>(command: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    [&[command, "run"], args, &["--device", "cpu", "--steps", "4"]].concat()
}

#[test]
fn pictures_are_drawn_anew() {
    let folder = copy_of(shared());
    let at = |name: &str| folder.path().join(name);
    works(folder.path(), &on_run("img2img", &["a.png", "--strength", "0.5", "-n", "4", "--out", "four.png"]));
    assert_eq!(size(&at("four.png")), (16, 16));
    works(folder.path(), &on_run("img2img", &["wide.png", "--strength", "1", "--sampler", "heun", "--out", "x.npy"]));
    let drawn = |name: &str, extra: &[&str]| {
        let args = [&["a.png", "-n", "2", "--out", name][..], extra].concat();
        works(folder.path(), &on_run("img2img", &args));
        values(&at(name))
    };
    let little = drawn("l.npy", &["--strength", "0.25"]);
    let much = drawn("m.npy", &["--strength", "1"]);
    assert!(distance(&little[..64], &a()) < distance(&much[..64], &a()), "less strength stays nearer");
    let shared = drawn("s.npy", &["--strength", "0.5", "--shared", "--sampler", "ddim"]);
    assert_eq!(shared[..64], shared[64..], "one x_t and no noise: one picture");
    let ancestral = drawn("t.npy", &["--strength", "0.5", "--shared", "--sampler", "ddpm"]);
    assert_ne!(ancestral[..64], ancestral[64..]);

    let fail = |args: &[&str], code, parts: &[&str]| fails(folder.path(), &on_run("img2img", args), code, parts);
    fail(&["a.png", "--strength", "0", "--out", "y.png"], 2, &["above 0"]);
    fail(&["a.png", "--strength", "1.5", "--out", "y.png"], 2, &["at most 1"]);
    fail(&["none.png", "--strength", "1", "--out", "y.png"], 1, &["none.png"]);
    fail(&["a.png", "--strength", "1", "--out", "y.png", "--class", "3"], 2, &["no classes"]);
    fails(folder.path(), &["img2img", "none", "a.png", "--strength", "1", "--out", "y.png"], 1, &["none"]);
    assert!(!at("y.png").exists());
}

#[test]
fn pictures_are_mixed() {
    let folder = copy_of(shared());
    let at = |name: &str| folder.path().join(name);
    works(folder.path(), &on_run("interpolate", &["a.png", "b.png", "-n", "5", "--out", "row.png"]));
    assert_eq!(size(&at("row.png")), (40, 8));
    works(folder.path(), &on_run("interpolate", &["a.png", "b.png", "--at", "300", "-n", "3", "--out", "film.gif"]));
    // The ends of a walk between two seeds are the pictures of these seeds.
    works(folder.path(), &on_run("interpolate", &["1", "2", "--space", "slerp", "-n", "3", "--out", "walk.npy"]));
    let walk = values(&at("walk.npy"));
    for (seed, part) in [("1", 0..64), ("2", 128..192)] {
        works(folder.path(), &on_run("sample", &["-n", "1", "--seed", seed, "--out", "end.npy"]));
        assert!(distance(&walk[part], &values(&at("end.npy"))) < 1e-5);
    }
    works(folder.path(), &on_run("interpolate", &["a.png", "7", "--space", "slerp", "-n", "2", "--out", "w.npy"]));

    let fail = |args: &[&str], code, parts: &[&str]| fails(folder.path(), &on_run("interpolate", args), code, parts);
    fail(&["a.png", "none.png", "--out", "y.png"], 1, &["none.png"]);
    fail(&["a.png", "b.png", "--at", "1000", "--out", "y.png"], 2, &["0 to 999"]);
    fail(&["1", "2", "--space", "slerp", "--at", "5", "--out", "y.png"], 2, &["--space xt"]);
    fail(&["1", "x.npy", "--space", "slerp", "--out", "y.png"], 1, &["x.npy", "8 x 8 x 1"]);
    assert!(!at("y.png").exists());
}

#[test]
fn masked_parts_are_filled_and_the_rest_stays() {
    let folder = copy_of(shared());
    let at = |name: &str| folder.path().join(name);
    for sampler in ["ddpm", "ddim", "euler", "euler-a"] {
        let args = ["a.png", "--mask", "half.png", "-n", "3", "--jump", "2", "--resample", "2", "--sampler", sampler];
        works(folder.path(), &on_run("inpaint", &[&args[..], &["--out", "x.npy"]].concat()));
        works(folder.path(), &on_run("inpaint", &[&args[..], &["--out", "y.npy", "--batch", "2"]].concat()));
        let (all, other) = (values(&at("x.npy")), values(&at("y.npy")));
        assert!(all == other, "{sampler}: batches change nothing");
        let known = a();
        for picture in all.chunks(64) {
            let (mut stayed, mut filled) = (0.0_f32, 0.0_f32);
            for i in 0..64 {
                let off = (picture[i] - known[i]).abs();
                if i % 8 < 4 { stayed = stayed.max(off) } else { filled = filled.max(off) }
            }
            assert!(stayed < 1e-6 && filled > 0.1, "{sampler}: {stayed} {filled}");
        }
        assert_ne!(all[..64], all[64..128]);
    }
    let fail = |args: &[&str], code, parts: &[&str]| fails(folder.path(), &on_run("inpaint", args), code, parts);
    fail(&["a.png", "--mask", "small.png", "--out", "z.png"], 1, &["small.png", "8x4", "8x8"]);
    fail(&["a.png", "--mask", "none.png", "--out", "z.png"], 1, &["none.png"]);
    fail(&["a.png", "--mask", "half.png", "--sampler", "unipc", "--out", "z.png"], 2, &["unipc", "euler"]);
    fail(&["a.png", "--mask", "half.png", "--out", "z.gif"], 2, &["no film"]);
    assert!(!at("z.png").exists());
}

#[test]
fn an_inverted_picture_comes_back() {
    let folder = copy_of(shared());
    let at = |name: &str| folder.path().join(name);
    works(folder.path(), &on_run("invert", &["a.png", "--no-clip", "--out", "x_T.npy"]));
    works(folder.path(), &on_run("sample", &["--noise", "x_T.npy", "--no-clip", "--out", "again.npy"]));
    let off = distance(&values(&at("again.npy")), &a());
    assert!(off < 1e-3, "{off}");
    works(folder.path(), &on_run("invert", &["again.npy", "--no-clip", "--out", "y_T.npy"]));
    assert!(distance(&values(&at("y_T.npy")), &values(&at("x_T.npy"))) < 1e-2);

    let fail = |args: &[&str], code, parts: &[&str]| fails(folder.path(), &on_run("invert", args), code, parts);
    fail(&["a.png", "--out", "x_T.png"], 2, &[".npy"]);
    fail(&["a.png", "--sampler", "heun", "--out", "z.npy"], 2, &["ddim"]);
    fail(&["none.png", "--out", "z.npy"], 1, &["none.png"]);
    npy(&at("flat.npy"), &[4], &[0.0; 4]);
    fail(&["flat.npy", "--out", "z.npy"], 1, &["flat.npy", "N x 8 x 8 x 1"]);
}

#[test]
fn neighbours_are_found_in_the_runs_own_data() {
    let folder = copy_of(shared());
    let at = |name: &str| folder.path().join(name);
    let out = works(folder.path(), &on_run("nearest", &["-n", "3", "-k", "2", "--out", "rows.png", "--json"]));
    assert_eq!(size(&at("rows.png")), (3 * 8, 3 * 8), "a sample and two neighbours, three times");
    let json: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let samples = json["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 3);
    assert!(samples.iter().all(|s| s["indices"].as_array().unwrap().len() == 2));
    // A set that holds the samples themselves: all are copies, and it says so.
    works(folder.path(), &on_run("sample", &["-n", "3", "--out", "own.npy"]));
    let own: Vec<f32> = values(&at("own.npy")).iter().map(|x| ((x + 1.0) / 2.0).clamp(0.0, 1.0)).collect();
    let others = (0..20 * 64).map(|i| ((i * 37) % 255) as f32 / 255.0);
    npy(&at("set.npy"), &[23, 8, 8, 1], &own.into_iter().chain(others).collect::<Vec<_>>());
    let args = on_run("nearest", &["-n", "3", "--data", "set.npy"]);
    ddpm(folder.path()).args(args).assert().success().stderr(predicates::str::contains("copies of training pictures"));

    let fail = |args: &[&str], code, parts: &[&str]| fails(folder.path(), &on_run("nearest", args), code, parts);
    fail(&["--out", "rows.gif"], 2, &[".png"]);
    fail(&["--data", "none"], 1, &["none"]);
    works(folder.path(), &["export", "run", "--out", "hf"]);
    fails(folder.path(), &["nearest", "hf", "--steps", "2"], 2, &["--data PATH"]);
    fails(folder.path(), &["nearest", "a.png"], 1, &["a.png"]);
}
