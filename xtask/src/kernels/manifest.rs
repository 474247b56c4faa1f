//! `kernels/manifest.json`: from what, by what and how the committed PTX was made.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Everything that determines the PTX, and the PTX's own hashes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// As the PTX itself says: `NVRTC 11.8.89`.
    pub(crate) compiler: String,
    /// What the compiler was given.
    pub(crate) options: Vec<String>,
    /// BLAKE3 of every source, headers too.
    pub(crate) sources: BTreeMap<String, String>,
    /// What came out, by the source's name without its ending.
    pub(crate) modules: BTreeMap<String, Module>,
}

/// One PTX file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Module {
    /// The oldest architecture that it is for: `compute_75`.
    pub(crate) architecture: String,
    /// Its kernels.
    pub(crate) kernels: Vec<String>,
    /// Its BLAKE3.
    pub(crate) ptx: String,
}

impl Module {
    /// What the manifest says of this PTX.
    pub(crate) fn of(ptx: &str) -> Self {
        let entries = ptx.lines().filter_map(|line| line.strip_prefix(".visible .entry "));
        let kernels = entries.map(|line| line.trim_end_matches('(').to_owned()).collect();
        let target = ptx.lines().find_map(|line| line.strip_prefix(".target sm_")).unwrap_or("of unknown target");
        Self { architecture: format!("compute_{target}"), kernels, ptx: hash(ptx) }
    }
}

const FILE: &str = "manifest.json";

impl Manifest {
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let file = folder.join(FILE);
        let text = fs::read_to_string(&file)
            .with_context(|| format!("reading {}; cargo xtask build-kernels writes it", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let file = folder.join(FILE);
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
    }
}

/// The text files of a folder that end in one of `endings`, in order.
pub(crate) fn files(folder: &Path, endings: &[&str]) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        let name = path.file_name().and_then(|name| name.to_str());
        if let (Some(ending), Some(name)) = (ending, name)
            && endings.contains(&ending)
        {
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            files.insert(name.to_owned(), text);
        }
    }
    Ok(files)
}

/// The hash of each file.
pub(crate) fn hashes(files: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    files.iter().map(|(name, text)| (name.clone(), hash(text))).collect()
}

fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

/// Adds a line to `wrong` for each file that is not as the manifest has it.
pub(crate) fn compare(here: &BTreeMap<String, String>, manifest: &BTreeMap<String, String>, wrong: &mut Vec<String>) {
    for (file, hash) in manifest {
        match here.get(file) {
            None => wrong.push(format!("{file} is missing")),
            Some(here) if here != hash => wrong.push(format!("{file} is not what the manifest was made for")),
            Some(_) => {}
        }
    }
    let new = here.keys().filter(|file| !manifest.contains_key(*file));
    wrong.extend(new.map(|file| format!("{file} is not in the manifest")));
}
