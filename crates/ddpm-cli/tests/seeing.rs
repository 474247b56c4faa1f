//! Looking at runs: curves, the page of a run, TensorBoard's file.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use self::common::{copy_of, ddpm, fails, tiny_network, works};

/// Trains the tiny network on `pictures` for some steps.
fn train(folder: &Path, out: &str, steps: &str, extra: &[&str]) {
    let data = ["train", "--data", "pictures", "--out", out, "--steps", steps];
    works(folder, &[&data[..], &tiny_network(), extra].concat());
}

/// A folder with two runs: `a` with previews and a file for TensorBoard, `b` without.
fn shared() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        common::pictures(&folder);
        let previews = ["--set", "preview.count=4", "--set", "preview.every=2", "--set", "preview.steps=1"];
        train(&folder, "a & b", "6", &[&previews[..], &["--set", "log.tensorboard=true"]].concat());
        train(&folder, "b", "2", &["--set", "optimiser.lr=0.01"]);
        folder
    })
}

/// Pictures are drawn on a thread of their own: what goes wrong there is said, and training goes on.
#[test]
fn a_preview_that_cannot_be_written_is_told_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    common::pictures(folder.path());
    fs::create_dir(folder.path().join("run")).unwrap();
    fs::write(folder.path().join("run/samples"), "a file where previews go").unwrap();
    let previews = ["--set", "preview.count=4", "--set", "preview.every=2", "--set", "preview.steps=1"];
    let data = ["train", "--data", "pictures", "--out", "run", "--steps", "6"];
    let output = ddpm(folder.path()).args([&data[..], &tiny_network(), &previews].concat()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for step in [2, 4] {
        assert_eq!(said.matches(&format!("the preview of step {step} could not be written")).count(), 1, "{said}");
    }
    assert!(folder.path().join("run/samples.png").is_file());
}

#[test]
fn curves_of_several_runs_share_a_picture() {
    let folder = copy_of(shared());
    let at = |name: &str| folder.path().join(name);
    works(folder.path(), &["plot", "a & b", "b", "--out", "new/x.svg"]);
    let svg = fs::read_to_string(at("new/x.svg")).unwrap();
    for part in [
        "<svg xmlns",
        ">a &amp; b</text>",
        ">b</text>",
        ">loss (smoothed)</text>",
        ">held-out loss (ema)</text>",
        ">learning rate</text>",
        ">gradient norm (smoothed)</text>",
    ] {
        assert_eq!(svg.matches(part).count(), 1, "{part} in {svg}");
    }
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
    // Two panels without held-out values would be half as high.
    works(folder.path(), &["plot", "a & b", "b", "--out", "x.png"]);
    let (width, height) = image::image_dimensions(at("x.png")).unwrap();
    assert!(width == 1280 && height > 720, "{width}x{height}");
    let said = works(folder.path(), &["plot", "b", "--curves", "images_per_s", "--out", "y.png", "--json"]);
    let said: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&said["curves"][0], &said["names"][0]), (&"images_per_s".into(), &"b".into()));

    fails(folder.path(), &["plot", "b", "--out", "x.pdf"], 2, &[".svg or .png"]);
    fails(
        folder.path(),
        &["plot", "b", "--curves", "los", "--out", "x.png"],
        2,
        &["no run has a curve `los`", "there are: ", "grad_norm"],
    );
    fails(folder.path(), &["plot", "pictures", "--out", "x.png"], 1, &["holds no run"]);
    fs::remove_file(at("b/metrics.jsonl")).unwrap();
    fails(folder.path(), &["plot", "b", "--out", "x.png"], 1, &["metrics.jsonl", "first step"]);
}

#[test]
fn a_runs_page_holds_everything_and_needs_nothing() {
    let folder = copy_of(shared());
    let page = fs::read_to_string(folder.path().join("a & b/report.html")).unwrap();
    for part in [
        "<h1>a &amp; b</h1>",
        "step 2",
        "step 4",
        "the end",
        "data:image/png;base64,",
        "data:image/gif;base64,",
        "loss (mean)",
        "network.block_out_channels",
        "<th>its hash</th>",
        "CPU, ",
        "12 pictures of 8x8x1",
    ] {
        assert!(page.contains(part), "no {part}");
    }
    // Nothing is fetched: the only addresses are names of XML dialects.
    let addresses: Vec<_> = page.match_indices("://").map(|(i, _)| &page[i - 5..(i + 12).min(page.len())]).collect();
    assert!(addresses.iter().all(|address| address.contains("://www.w3.o")), "{addresses:?}");
    for bad in ["src=\"h", "href=", "<link", "@import", "url("] {
        assert!(!page.contains(bad), "{bad}");
    }
    // A run without previews, and a preset's.
    let page = fs::read_to_string(folder.path().join("b/report.html")).unwrap();
    assert!(!page.contains("<h2>Pictures</h2>") && page.contains("<td>0.01</td>"));
}

/// The page in a real browser, wide and narrow: what its script did, and that nothing sticks out.
#[test]
fn a_browser_shows_the_page() {
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()))
    else {
        assert!(std::env::var_os("CI").is_none(), "CI has a browser");
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: there is no Chromium here");
        }
        return;
    };
    let folder = copy_of(shared());
    let probe = "<script>document.documentElement.dataset.out = document.documentElement.scrollWidth - innerWidth</script></body>";
    let page = fs::read_to_string(folder.path().join("a & b/report.html")).unwrap().replace("</body>", probe);
    let path = folder.path().join("page.html");
    fs::write(&path, page).unwrap();
    let shot = folder.path().join("shot.png");
    // A window is never narrower than 500, where the page is laid out for phones.
    for width in [1200, 500] {
        let output = Command::new("timeout")
            .args([
                "180",
                browser,
                "--headless=new",
                "--disable-dev-shm-usage",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--dump-dom",
            ])
            .arg(format!("--screenshot={}", shot.display()))
            .arg(format!("--window-size={width},3000"))
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .arg(format!("file://{}", path.display()))
            .output()
            .unwrap();
        let dom = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(dom.contains("data-ready"), "the script did not run to its end: {said}");
        assert!(dom.contains("class=\"frames js\"") && dom.contains("max=\"2\""), "no slider over three pictures");
        let out = dom.split("data-out=\"").nth(1).and_then(|rest| rest.split('"').next());
        assert!(out.is_some_and(|out| out.parse::<i64>().unwrap() <= 0), "{width}: sticks out by {out:?}");
        let picture = image::open(&shot).unwrap().into_rgb8();
        let inked = picture.pixels().filter(|pixel| **pixel != *picture.get_pixel(0, 0)).count();
        assert!(inked * 20 > picture.len() / 3, "{width}: an empty page");
        fs::remove_file(&shot).unwrap();
    }
}

/// The records of an event file: their sizes.
fn records(path: &Path) -> usize {
    let bytes = fs::read(path).unwrap();
    let (mut at, mut count) = (0, 0);
    while at < bytes.len() {
        at += 16 + u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        count += 1;
    }
    assert_eq!(at, bytes.len());
    count
}

#[test]
fn tensorboard_gets_the_same_numbers_and_a_resumed_run_goes_on() {
    let folder = copy_of(shared());
    let path = folder.path().join("a & b/events.out.tfevents.ddpm");
    // The version, six steps, and two previews of both sets of weights.
    assert_eq!(records(&path), 1 + 6 + 4);
    assert!(!folder.path().join("b/events.out.tfevents.ddpm").exists());
    let before = fs::read(&path).unwrap();
    works(folder.path(), &["train", "--resume", "--out", "a & b", "--steps", "8", "--device", "cpu"]);
    assert_eq!(records(&path), 1 + 8 + 4);
    assert!(fs::read(&path).unwrap().starts_with(&before));
    // What was written after the checkpoint that one goes back to is made anew.
    for step in ["step-000007", "step-000008"] {
        fs::remove_dir_all(folder.path().join("a & b/checkpoints").join(step)).unwrap();
    }
    ddpm(folder.path()).args(["train", "--resume", "--out", "a & b", "--device", "cpu"]).assert().success();
    assert_eq!(records(&path), 1 + 8 + 4);
}
