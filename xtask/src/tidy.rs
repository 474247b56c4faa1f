//! `cargo xtask tidy`: what no compiler checks. The same checks are a test, so that `cargo test` makes them too.

use crate::{kernels, repository};
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Files that people write and read, by their endings.
const WRITTEN: [&str; 11] = ["rs", "cu", "cuh", "h", "cpp", "py", "sh", "toml", "md", "yml", "yaml"];
/// A file is one idea, and an idea has an end.
const LINES: usize = 600;
/// What holds data that somebody made and licensed.
const DATA: [&str; 7] = ["npz", "npy", "png", "jpg", "gif", "safetensors", "gz"];

/// Checks the whole repository; fails with every finding, one a line.
pub(crate) fn run() -> Result<()> {
    let files = repository::files()?;
    let mut findings = findings(&read(&files));
    findings.extend(kernels::check_committed().err().map(|error| format!("{error:#}")));
    if !findings.is_empty() {
        bail!("not tidy:\n  {}", findings.join("\n  "));
    }
    println!("tidy: {} files", files.len());
    Ok(())
}

/// The files by their names with `/`, with their text where it is text.
type Files = BTreeMap<String, Option<String>>;

fn read(files: &[impl AsRef<Path>]) -> Files {
    let name = |file: &Path| file.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
    let text = |file: &Path| fs::read_to_string(repository::root().join(file)).ok();
    files.iter().map(|file| (name(file.as_ref()), text(file.as_ref()))).collect()
}

fn findings(files: &Files) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, text) in files {
        let Some(text) = text else { continue };
        let ending = ending(name);
        if WRITTEN.contains(&ending) {
            let lines = text.lines().count();
            if lines >= LINES {
                findings.push(format!("{name}: {lines} lines; split it below {LINES}"));
            }
        }
        for (number, line) in text.lines().enumerate() {
            if let Some(what) = forbidden_path(line) {
                findings.push(format!("{name}:{}: {what}, a path of one machine", number + 1));
            }
            if ending == "rs"
                && let Some(what) = forbidden_code(line)
            {
                findings.push(format!("{name}:{}: {what}", number + 1));
            }
        }
    }
    licences(files, &mut findings);
    unsafe_code(files, &mut findings);
    versions(files, &mut findings);
    findings
}

fn ending(name: &str) -> &str {
    Path::new(name).extension().and_then(|ending| ending.to_str()).unwrap_or("")
}

/// A folder of somebody's own machine. Written in parts here, so that this file passes its own check.
fn forbidden_path(line: &str) -> Option<&'static str> {
    let folders = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];
    folders.into_iter().find(|folder| {
        line.match_indices(folder).any(|(at, _)| {
            // `src/work/mod.rs` or `crate::root/` is no absolute path.
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || "._-~}$)*]".contains(c))
        })
    })
}

/// Code that must not be committed.
fn forbidden_code(line: &str) -> Option<&'static str> {
    let words = [concat!("#[ign", "ore"), concat!("to", "do!("), concat!("unimpl", "emented!(")];
    words.into_iter().find(|word| line.contains(word))
}

/// Data stands beside a README.md that names it; the README says whose it is and under which licence.
fn licences(files: &Files, findings: &mut Vec<String>) {
    for name in files.keys().filter(|name| name.starts_with("data/") && DATA.contains(&ending(name))) {
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
        let readme = format!("{folder}/README.md");
        let text = files.get(&readme).and_then(Option::as_deref).unwrap_or("");
        let says = |word: &str| text.to_lowercase().contains(word);
        if !text.contains(file) || !(says("licence") || says("license")) {
            findings.push(format!("{name}: {readme} must name it and its licence"));
        }
    }
}

/// `unsafe` belongs to the two lowest crates; the others forbid it, and xtask denies it but for one module.
fn unsafe_code(files: &Files, findings: &mut Vec<String>) {
    let with = ["crates/ddpm-tensor/", "crates/ddpm-kernels/", "xtask/"];
    for (name, text) in files {
        let is_crate = name.ends_with("/src/lib.rs") || name.ends_with("/src/main.rs");
        let forbids = text.as_deref().is_some_and(|text| text.contains("#![forbid(unsafe_code)]"));
        if is_crate && !forbids && !with.iter().any(|folder| name.starts_with(folder)) {
            findings.push(format!("{name}: #![forbid(unsafe_code)] is missing"));
        }
    }
}

/// Every version stands once, in the workspace's Cargo.toml.
fn versions(files: &Files, findings: &mut Vec<String>) {
    for (name, text) in files.iter().filter(|(name, _)| name.ends_with("/Cargo.toml")) {
        let mut in_dependencies = false;
        for line in text.as_deref().unwrap_or("").lines().map(str::trim) {
            if line.starts_with('[') {
                in_dependencies = line.ends_with("dependencies]");
            } else if in_dependencies && line.contains('=') && !line.contains("workspace") && !line.starts_with('#') {
                findings.push(format!("{name}: `{line}`: versions belong into the workspace's Cargo.toml"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Files, findings};

    #[test]
    #[allow(clippy::unwrap_used)]
    fn the_repository_is_tidy() {
        super::run().unwrap();
    }

    fn of(files: &[(&str, &str)]) -> Vec<String> {
        let files: Files = files.iter().map(|(name, text)| ((*name).into(), Some((*text).into()))).collect();
        findings(&files)
    }

    #[test]
    fn every_rule_finds_what_it_is_for() {
        let long = "\n".repeat(600);
        let cases: [(&[(&str, &str)], &str); 10] = [
            (&[("a/b.rs", &long)], "600 lines"),
            (&[("a.rs", concat!("#[ign", "ore = \"slow\"]"))], "a.rs:1"),
            (&[("a.rs", concat!("\nto", "do!()"))], "a.rs:2"),
            (&[("a.md", concat!("see /ho", "me/me/x"))], "a path of one machine"),
            (&[("a.json", concat!("\"/wo", "rk/x\""))], "a path of one machine"),
            (&[("data/x.npz", "")], "data/README.md must name it"),
            (&[("data/x.npz", ""), ("data/README.md", "x.npz is nice")], "and its licence"),
            (&[("data/x.npz", ""), ("data/README.md", "Licence: MIT")], "must name it"),
            (&[("crates/ddpm-nn/src/lib.rs", "//! Layers.")], "forbid(unsafe_code)"),
            (&[("crates/a/Cargo.toml", "[dev-dependencies]\nrand = \"1\"")], "versions belong"),
        ];
        for (files, expected) in cases {
            let found = of(files);
            assert!(found.len() == 1 && found[0].contains(expected), "{files:?}: {found:?}");
        }
    }

    #[test]
    fn what_is_fine_is_left_alone() {
        let fine = [
            ("a/work/mod.rs", "use crate::work; // src/work/mod.rs, ~/home/x, https://example.org/home/"),
            ("data/x.npz", ""),
            ("data/README.md", "| `x.npz` | licence: CC0 |"),
            ("kernels/a.ptx", "a long file"),
            ("crates/ddpm-tensor/src/lib.rs", "//! Memory."),
            ("crates/a/Cargo.toml", "[package]\nname = \"a\"\n[dependencies]\nrand.workspace = true\n"),
        ];
        assert_eq!(of(&fine), [""; 0]);
    }
}
