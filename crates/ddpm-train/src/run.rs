//! A run's directory, and what a MODEL on the command line may be.
//!
//! ```text
//! runs/digits/
//!   config.toml               every setting of the run
//!   metrics.jsonl             one JSON object a step
//!   samples/step-000500.png   previews
//!   checkpoints/step-000500/  see `checkpoint`
//!   events.out.tfevents.ddpm  the same for TensorBoard, if asked for
//!   .lock                     held while a trainer works here
//! ```

mod events;
mod metrics;
mod model;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use events::{EncodedPng, Events};
pub use metrics::Metrics;
pub use model::{DiffusersFolder, Model};

/// Why a run's directory, or a model's, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The system refused.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A new run was to be made where there is one.
    #[error("{} holds a run already; resume it, or choose another directory", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// There is no run where one was to be.
    #[error("{} holds no run (no config.toml)", path.display())]
    NotARun {
        /// The directory.
        path: PathBuf,
    },
    /// No run at all was found.
    #[error("there is no run in {}", runs.display())]
    NoRuns {
        /// Where runs are kept.
        runs: PathBuf,
    },
    /// Another trainer works in the run.
    #[error("another trainer is at work in {}", path.display())]
    Locked {
        /// The run's directory.
        path: PathBuf,
    },
    /// What was given as a model is none.
    #[error("{} is no model: {reason}", path.display())]
    NotAModel {
        /// What was given.
        path: PathBuf,
        /// What was looked for there.
        reason: &'static str,
    },
    /// A run or checkpoint folder without a checkpoint.
    #[error("{} has no checkpoint yet", path.display())]
    NoCheckpoint {
        /// The run's directory.
        path: PathBuf,
    },
    /// Earlier weights are asked for, and it keeps none.
    #[error("{} keeps no weights of an earlier step", path.display())]
    NoEarlyWeights {
        /// The checkpoint's folder, or a file of weights.
        path: PathBuf,
    },
    /// The weights are a pickle, which is a program and is not run.
    #[error(
        "{} is a Python pickle, which is not read; convert it once with: \
         python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('{}', weights_only=True), '{}')\"",
        path.display(), path.display(), path.with_extension("safetensors").display()
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
}

impl RunError {
    fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), source }
    }
}

/// The directory of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    root: PathBuf,
}

impl RunDir {
    /// Makes the next free of `runs/NAME`, `runs/NAME-2`, `runs/NAME-3`, …
    ///
    /// # Errors
    /// [`RunError::Io`] if it cannot be made.
    pub fn next_free(runs: &Path, name: &str) -> Result<Self, RunError> {
        fs::create_dir_all(runs).map_err(|error| RunError::io("make", runs, error))?;
        let mut number = 1_u64;
        loop {
            let root = match number {
                1 => runs.join(name),
                _ => runs.join(format!("{name}-{number}")),
            };
            // Making it is what takes it: of two programs that start at once, each gets its own.
            match fs::create_dir(&root) {
                Ok(()) => return Ok(Self { root }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(RunError::io("make", &root, error)),
            }
        }
    }

    /// Makes a given directory a new run's. It may be there, but without a run in it.
    ///
    /// # Errors
    /// [`RunError::Exists`] if it holds a run, [`RunError::Io`] if it cannot be made.
    pub fn create(root: &Path) -> Result<Self, RunError> {
        let run = Self { root: root.to_owned() };
        if run.holds_a_run() {
            return Err(RunError::Exists { path: run.root });
        }
        fs::create_dir_all(root).map_err(|error| RunError::io("make", root, error))?;
        Ok(run)
    }

    /// Opens the directory of a run that is there.
    ///
    /// # Errors
    /// [`RunError::NotARun`] if there is no `config.toml` in it.
    pub fn open(root: &Path) -> Result<Self, RunError> {
        let run = Self { root: root.to_owned() };
        if run.config().is_file() { Ok(run) } else { Err(RunError::NotARun { path: run.root }) }
    }

    /// Opens the run in `runs` that was last worked on.
    ///
    /// # Errors
    /// [`RunError::NoRuns`] if there is none.
    pub fn newest(runs: &Path) -> Result<Self, RunError> {
        let none = || RunError::NoRuns { runs: runs.to_owned() };
        let listing = match fs::read_dir(runs) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(none()),
            Err(error) => return Err(RunError::io("list", runs, error)),
        };
        listing
            .filter_map(|entry| Self::open(&entry.ok()?.path()).ok())
            .max_by_key(|run| (run.last_change(), run.root.clone()))
            .ok_or_else(none)
    }

    /// When something was last written to the settings or metrics.
    fn last_change(&self) -> Option<SystemTime> {
        let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
        changed(&self.metrics()).max(changed(&self.config()))
    }

    fn holds_a_run(&self) -> bool {
        [self.config(), self.metrics(), self.checkpoints()].iter().any(|path| path.exists())
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its name, as in `runs/NAME`.
    pub fn name(&self) -> String {
        self.root.file_name().unwrap_or(self.root.as_os_str()).to_string_lossy().into_owned()
    }

    /// `config.toml`.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// `metrics.jsonl`.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// TensorBoard's event file, which must have `tfevents` in its name.
    pub fn events(&self) -> PathBuf {
        self.root.join("events.out.tfevents.ddpm")
    }

    /// `checkpoints/`.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// `samples/`, for previews.
    pub fn samples(&self) -> PathBuf {
        self.root.join("samples")
    }

    /// Writes `config.toml`: complete or not at all, in place of an older one if there is one.
    ///
    /// # Errors
    /// [`RunError::Io`] if it cannot be written.
    pub fn write_config(&self, text: &str) -> Result<(), RunError> {
        let (path, partial) = (self.config(), self.root.join(".config.toml.partial"));
        let attempt = || {
            let mut file = File::create(&partial)?;
            io::Write::write_all(&mut file, text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&partial, &path)
        };
        attempt().map_err(|error| RunError::io("write", &path, error))
    }

    /// Reads `config.toml`.
    ///
    /// # Errors
    /// [`RunError::Io`] if it cannot be read.
    pub fn read_config(&self) -> Result<String, RunError> {
        fs::read_to_string(self.config()).map_err(|error| RunError::io("read", &self.config(), error))
    }

    /// Keeps other trainers out until the result is dropped or the process ends, however it ends.
    ///
    /// # Errors
    /// [`RunError::Locked`] if another trainer holds it.
    pub fn lock(&self) -> Result<RunLock, RunError> {
        let path = self.root.join(".lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| RunError::io("open", &path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(RunLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(RunError::Locked { path: self.root.clone() }),
            Err(TryLockError::Error(error)) => Err(RunError::io("lock", &path, error)),
        }
    }
}

/// The right to train in a run's directory; see [`RunDir::lock`].
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_in_turn() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        let names: Vec<_> = (0..3).map(|_| RunDir::next_free(&runs, "digits").unwrap().name()).collect();
        assert_eq!(names, ["digits", "digits-2", "digits-3"]);
        assert!(matches!(RunDir::newest(&runs), Err(RunError::NoRuns { .. })), "none of them has begun");
        let second = RunDir { root: runs.join("digits-2") };
        second.write_config("").unwrap();
        assert_eq!(RunDir::newest(&runs).unwrap(), second);
        assert!(matches!(RunDir::newest(&runs.join("none")), Err(RunError::NoRuns { .. })));
    }

    #[test]
    fn the_newest_is_the_one_last_worked_on() {
        let runs = tempfile::tempdir().unwrap();
        for (name, age) in [("b", 30), ("a", 10), ("c", 20)] {
            let run = RunDir::create(&runs.path().join(name)).unwrap();
            run.write_config("").unwrap();
            let then = SystemTime::now() - std::time::Duration::from_secs(age);
            File::options().write(true).open(run.config()).unwrap().set_modified(then).unwrap();
        }
        assert_eq!(RunDir::newest(runs.path()).unwrap().name(), "a");
        fs::write(runs.path().join("c/metrics.jsonl"), "").unwrap();
        assert_eq!(RunDir::newest(runs.path()).unwrap().name(), "c");
    }

    #[test]
    fn a_run_is_not_made_over_another() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        assert!(matches!(RunDir::open(folder.path()), Err(RunError::NotARun { .. })));
        run.write_config("a = 1\n").unwrap();
        assert_eq!(RunDir::open(folder.path()).unwrap().read_config().unwrap(), "a = 1\n");
        assert!(matches!(RunDir::create(folder.path()), Err(RunError::Exists { .. })));
    }

    #[test]
    fn one_trainer_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        let lock = run.lock().unwrap();
        assert!(matches!(run.lock(), Err(RunError::Locked { .. })));
        drop(lock);
        drop(run.lock().unwrap());
    }
}
