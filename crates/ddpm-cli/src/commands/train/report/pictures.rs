//! A run's pictures as they stand in its page.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use ddpm_train::run::RunDir;

use crate::progress::thousands;

/// Bytes of pictures that a page takes at most; of more, every second, third … preview is shown.
const MOST_BYTES: u64 = 16 << 20;
/// Pictures up to this many pixels across are enlarged with sharp edges.
const SMALL: u32 = 600;

/// A preview: its step, the average's picture, and the raw weights'.
#[derive(Debug, PartialEq, Eq)]
struct Preview {
    step: u64,
    ema: PathBuf,
    raw: Option<PathBuf>,
}

impl Preview {
    fn bytes(&self) -> u64 {
        [Some(&self.ema), self.raw.as_ref()].into_iter().flatten().map(|path| length(path)).sum()
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |data| data.len())
}

/// The previews of a run up to a step, in order.
fn previews(run: &RunDir, done: u64) -> Vec<Preview> {
    let names = fs::read_dir(run.samples()).into_iter().flatten().flatten().map(|entry| entry.path());
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.strip_suffix(".png")?.parse().ok();
    let mut found: Vec<Preview> = names
        .filter_map(|ema| {
            let step = step(&ema).filter(|step| *step <= done)?;
            let raw = ema.with_file_name(format!("{}-raw.png", ema.file_stem()?.to_str()?));
            Some(Preview { step, raw: raw.is_file().then_some(raw), ema })
        })
        .collect();
    found.sort_by_key(|preview| preview.step);
    found
}

/// As many as fit, evenly spread; the last is always among them.
fn fitting(all: Vec<Preview>, most: u64) -> Vec<Preview> {
    let total = all.len();
    let kept = |every: usize| move |i: &usize| (total - 1 - i).is_multiple_of(every);
    let bytes = |every: usize| (0..total).filter(kept(every)).map(|i| all[i].bytes()).sum::<u64>();
    let every = (1..=total.max(1)).find(|every| bytes(*every) <= most).unwrap_or(total);
    all.into_iter().enumerate().filter(|(i, _)| kept(every)(i)).map(|(_, preview)| preview).collect()
}

/// The pictures over time and the film, or nothing where there are none.
pub(super) fn html(run: &RunDir, done: u64) -> Option<String> {
    let all = previews(run, done);
    let (count, shown) = (all.len(), fitting(all, MOST_BYTES));
    let root = run.root();
    let mut frames = String::new();
    let mut has_raw = false;
    for preview in &shown {
        let label = format!("step {}", thousands(preview.step));
        has_raw |= preview.raw.is_some();
        frame(&mut frames, &preview.ema, preview.step, "ema", &label, "moving average");
        if let Some(raw) = &preview.raw {
            frame(&mut frames, raw, preview.step, "raw", &format!("{label}, raw"), "weights as they are");
        }
    }
    frame(&mut frames, &root.join("samples.png"), u64::MAX, "ema", "the end", "moving average, at the end");
    let film = root.join("denoising.gif");
    if frames.is_empty() && !film.is_file() {
        return None;
    }
    let mut html = "<div class=\"wide\">\n".to_owned();
    if !frames.is_empty() {
        let raw = if has_raw { "<label><input type=\"checkbox\"> without averaging</label>" } else { "" };
        let left_out = match count - shown.len() {
            0 => String::new(),
            _ => format!("<p class=\"soft\">{} of {count} previews: the others are in samples/.</p>\n", shown.len()),
        };
        let _ = write!(
            html,
            "<div class=\"card\">\n<div class=\"frames\">\n{frames}</div>\n<div class=\"controls\" hidden>\
             <input type=\"range\" min=\"0\" aria-label=\"step\"><output></output><button>play</button>{raw}</div>\n{left_out}</div>\n"
        );
    }
    if let Some(source) = source(&film).filter(|_| length(&film) <= MOST_BYTES) {
        let _ = writeln!(
            html,
            "<figure class=\"card\"><img{source} alt=\"pictures coming out of noise\">\
             <figcaption>From noise to pictures, by the final weights</figcaption></figure>"
        );
    }
    html.push_str("</div>\n");
    Some(html)
}

/// Adds one picture, if it can be read.
fn frame(html: &mut String, path: &Path, step: u64, weights: &str, label: &str, what: &str) {
    if let Some(source) = source(path) {
        let _ = writeln!(
            html,
            "<figure class=\"frame\" data-step=\"{step}\" data-weights=\"{weights}\" data-label=\"{label}\"><img{source} \
             alt=\"samples, {label}\"><figcaption>{label}: {what}</figcaption></figure>"
        );
    }
}

/// An image's attributes with all of its bytes.
fn source(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let kind = if path.extension()? == "gif" { "gif" } else { "png" };
    let small = image::image_dimensions(path).is_ok_and(|(width, _)| width <= SMALL);
    let class = if small { " class=\"small\"" } else { "" };
    Some(format!("{class} src=\"data:image/{kind};base64,{}\"", base64(&bytes)))
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let all = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let letter = LETTERS[(all >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standards() {
        // RFC 4648, section 10.
        let pairs =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, coded) in pairs {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfb]), "//77");
    }

    #[test]
    fn of_too_many_pictures_evenly_spread_ones_stay() {
        let all = |count: u64| -> Vec<Preview> {
            (1..=count).map(|step| Preview { step, ema: PathBuf::new(), raw: None }).collect()
        };
        let steps = |shown: Vec<Preview>| shown.iter().map(|preview| preview.step).collect::<Vec<_>>();
        assert_eq!(steps(fitting(all(5), 0)), [1, 2, 3, 4, 5], "files of no length fit");
        assert!(fitting(Vec::new(), 0).is_empty());
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let path = folder.path().join("x.png");
        fs::write(&path, [0; 10]).unwrap_or_else(|error| panic!("{error}"));
        let large = |count| all(count).into_iter().map(|one| Preview { ema: path.clone(), ..one }).collect();
        assert_eq!(steps(fitting(large(7), 40)), [1, 3, 5, 7]);
        assert_eq!(steps(fitting(large(7), 20)), [3, 7]);
        assert_eq!(steps(fitting(large(7), 1)), [7]);
    }
}
