//! `state.json`: what a checkpoint holds, and the hash of every file of it.
//!
//! The text has one form only, and its last field is the hash of all before it, so that a change of any bit shows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Damage;

/// The name of the file in a checkpoint's folder.
pub const STATE: &str = "state.json";
/// The format that is written, and the newest that is read.
pub const FORMAT: u64 = 1;

/// Length and hash of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3 hash, hexadecimal.
    pub blake3: String,
}

/// Where a training run stood, besides its tensors and settings. It holds no time, no path and no thread count: the
/// same run gives the same bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// Images seen: the sum of the batches.
    pub images: u64,
    /// Updates of the moving average, which its warm-up counts.
    pub ema_updates: u64,
    /// Instruction set that made the numbers (`portable`, `avx2`, …).
    pub isa: String,
    /// Precision that made the numbers (`strict`, `f32`, `bf16`).
    pub precision: String,
    /// Class names, in the order of their numbers; empty without classes.
    pub classes: Vec<String>,
    /// Hash of the data that it was trained on.
    pub data: String,
    /// Hash of `config.toml`, once more, so that it names a recipe.
    pub config: String,
}

/// The whole of `state.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: u64,
    version: String,
    pub(super) state: State,
    pub(super) files: BTreeMap<String, FileRecord>,
    blake3: String,
}

impl Manifest {
    pub(super) fn new(state: State, files: BTreeMap<String, FileRecord>) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { format: FORMAT, version, state, files, blake3: String::new() }.sealed()
    }

    fn sealed(mut self) -> Self {
        self.blake3 = String::new();
        self.blake3 = blake3::hash(self.text().as_bytes()).to_hex().to_string();
        self
    }

    /// The text of the file.
    pub(super) fn text(&self) -> String {
        // Maps with text keys, numbers and texts: there is nothing that JSON could not hold.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Hash of the whole checkpoint: it covers every file.
    pub(super) fn hash(&self) -> &str {
        &self.blake3
    }

    /// Version of the program that wrote it.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Reads the text back; anything that [`Manifest::text`] would not have written is damage.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Damage> {
        #[derive(Deserialize)]
        struct OnlyFormat {
            format: u64,
        }

        let json = |error: serde_json::Error| Damage::Json { reason: error.to_string() };
        let OnlyFormat { format } = serde_json::from_slice(bytes).map_err(json)?;
        if format != FORMAT {
            return Err(Damage::Format { got: format });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(json)?;
        let sealed = manifest.clone().sealed();
        if sealed.blake3 != manifest.blake3 {
            return Err(Damage::Hash { expected: manifest.blake3, got: sealed.blake3 });
        }
        if manifest.text().as_bytes() != bytes {
            return Err(Damage::Rewritten);
        }
        Ok(manifest)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let record = FileRecord { bytes: 12, blake3: blake3::hash(b"x").to_hex().to_string() };
        let state = State {
            step: 500,
            images: 32_000,
            ema_updates: 500,
            isa: "avx2".to_owned(),
            precision: "f32".to_owned(),
            classes: vec!["zero".to_owned(), "né\"".to_owned()],
            data: "d".to_owned(),
            config: "c".to_owned(),
        };
        Manifest::new(state, BTreeMap::from([("weights.safetensors".to_owned(), record)]))
    }

    #[test]
    fn what_is_written_is_read() {
        let manifest = manifest();
        assert_eq!(Manifest::parse(manifest.text().as_bytes()).unwrap(), manifest);
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_seen() {
        let text = manifest().text().into_bytes();
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::parse(&flipped).is_err(), "bit {bit}");
        }
        for length in 0..text.len() {
            assert!(Manifest::parse(&text[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let newer = manifest().text().replace("\"format\": 1", "\"format\": 2");
        assert!(matches!(Manifest::parse(newer.as_bytes()), Err(Damage::Format { got: 2 })));
    }
}
