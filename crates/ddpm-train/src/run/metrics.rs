//! `metrics.jsonl`: one JSON object a step, in the order of the steps.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RunError;

/// The open file, at whose end lines are added.
///
/// A line is handed to the system as soon as it is made, so that a kill loses none.
#[derive(Debug)]
pub struct Metrics {
    file: File,
    path: PathBuf,
    line: Vec<u8>,
}

/// What every line has.
#[derive(Deserialize)]
struct Line {
    step: u64,
}

impl Metrics {
    /// Opens the file after cutting it back to the lines of steps up to `step`: later ones will be made again. A torn
    /// line and what stands behind it go as well.
    ///
    /// # Errors
    /// [`RunError::Io`] if the file cannot be read or written.
    pub fn open(path: &Path, step: u64) -> Result<Self, RunError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(RunError::io("read", path, error)),
        };
        let kept = text
            .split_inclusive(|&byte| byte == b'\n')
            .take_while(|line| line.ends_with(b"\n"))
            .take_while(|line| serde_json::from_slice::<Line>(line).is_ok_and(|line| line.step <= step))
            .map(<[u8]>::len)
            .sum::<usize>();
        let attempt = || {
            let file = File::options().create(true).append(true).open(path)?;
            if kept < text.len() {
                file.set_len(kept as u64)?;
            }
            Ok(file)
        };
        let file = attempt().map_err(|error| RunError::io("open", path, error))?;
        Ok(Self { file, path: path.to_owned(), line: Vec::with_capacity(512) })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// [`RunError::Io`] if it cannot be written.
    pub fn append(&mut self, line: &impl Serialize) -> Result<(), RunError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line).map_err(|error| RunError::io("write", &self.path, error.into()))?;
        self.line.push(b'\n');
        self.file.write_all(&self.line).map_err(|error| RunError::io("write", &self.path, error))
    }

    /// Brings all lines to the disk, as before a checkpoint that presumes them.
    ///
    /// # Errors
    /// [`RunError::Io`] if that fails.
    pub fn sync(&self) -> Result<(), RunError> {
        self.file.sync_data().map_err(|error| RunError::io("write", &self.path, error))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn line(step: u64) -> String {
        format!("{{\"step\":{step},\"loss\":0.5}}\n")
    }

    #[test]
    fn it_is_cut_back_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(&path, 0).unwrap();
        for step in 1..=5 {
            metrics.append(&serde_json::json!({ "step": step, "loss": 0.5 })).unwrap();
        }
        metrics.sync().unwrap();
        let mut metrics = Metrics::open(&path, 3).unwrap();
        metrics.append(&serde_json::json!({ "step": 4, "loss": 0.5 })).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), (1..=4).map(line).collect::<String>());
    }

    #[test]
    fn a_torn_or_foreign_line_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        for tail in ["{\"step\":2", "{\"step\":2}", "\0\0\0\n", "{\"loss\":1}\n{\"step\":3}\n", "\u{fffd}\n"] {
            fs::write(&path, line(1) + tail).unwrap();
            Metrics::open(&path, 9).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), line(1), "{tail:?}");
        }
    }

    #[test]
    fn what_is_not_there_begins_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        Metrics::open(&path, 7).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
        assert!(Metrics::open(&folder.path().join("none/metrics.jsonl"), 7).is_err());
    }
}
