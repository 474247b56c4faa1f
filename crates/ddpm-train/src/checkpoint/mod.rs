//! Checkpoints: where a training run stands, in a folder that is complete or not there.
//!
//! | file | holds |
//! |---|---|
//! | `weights.safetensors` | the network's parameters |
//! | `ema.safetensors` | their exponential moving average |
//! | `early.safetensors` | that average as it was after the step `ema.early`; only where it is kept |
//! | `moments.safetensors` | Adam's first (`m.…`) and second (`v.…`) moments |
//! | `log_variance.safetensors` | the loss's learned variance at each time step, with moments and average; only where it is learned |
//! | `losses.safetensors` | the losses from which time steps are drawn; only where they are |
//! | `config.toml` | the settings that determine the numbers |
//! | `state.json` | step, counters, class names, and length and BLAKE3 hash of every file ([`State`]) |
//!
//! The tensors have their names of diffusers and the layouts of this project. Nothing in a checkpoint depends on the
//! time, the folder or the number of threads: a run gives the same bytes wherever and however often it is made.

mod atomic;
mod fault;
mod manifest;
mod network;
mod tensors;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use atomic::{Staged, prune, put_aside, remove_unfinished, step_name, step_of, steps};
pub use manifest::{FORMAT, FileRecord, STATE, State};
pub use network::{FromDevice, ToDevice, entries};
pub use tensors::{Entry, ReadFlat, Source, Target, TensorsError, WriteFlat, read, write};

use manifest::Manifest;

/// The file of the network's parameters.
pub const WEIGHTS: &str = "weights.safetensors";
/// The file of their moving average.
pub const EMA: &str = "ema.safetensors";
/// The file of their moving average at an earlier step.
pub const EARLY: &str = "early.safetensors";
/// The file of Adam's moments.
pub const MOMENTS: &str = "moments.safetensors";
/// The file of the learned variances of the loss, with their moments and average.
pub const LOG_VARIANCE: &str = "log_variance.safetensors";
/// The file of the losses from which time steps are drawn.
pub const LOSSES: &str = "losses.safetensors";
/// The file of the settings.
pub const CONFIG: &str = "config.toml";
/// Prefixes of the two moments' names.
const M: &str = "m.";
const V: &str = "v.";
/// The longest `state.json` and `config.toml` that are read, in bytes.
const MAX_TEXT: u64 = 16 << 20;

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
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
    /// A file is not the one that was written.
    #[error("{} is damaged: {damage}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The file is sound, but it belongs to another network.
    #[error("{} does not fit this network: {reason}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The first tensor that does not fit.
        reason: TensorsError,
    },
}

/// What is wrong with a file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// It is not there.
    #[error("it is missing")]
    Missing,
    /// It is shorter or longer than it was.
    #[error("it has {got} bytes instead of {expected}")]
    Length {
        /// Bytes that were written.
        expected: u64,
        /// Bytes that are there.
        got: u64,
    },
    /// Its contents have changed.
    #[error("its BLAKE3 hash is {got} instead of {expected}")]
    Hash {
        /// Hash of what was written.
        expected: String,
        /// Hash of what is there.
        got: String,
    },
    /// It is not the JSON that it was.
    #[error("it is not as written: {reason}")]
    Json {
        /// What the JSON reader said.
        reason: String,
    },
    /// It means the same, but it was written by something else.
    #[error("its text was changed after it was written")]
    Rewritten,
    /// A newer version of the program wrote it.
    #[error("it is in format {got}, this program reads format {FORMAT}")]
    Format {
        /// Format that it claims.
        got: u64,
    },
    /// A file that every checkpoint has is not listed in it.
    #[error("it does not list {name}")]
    Unlisted {
        /// The file's name.
        name: String,
    },
}

impl CheckpointError {
    fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), source }
    }

    fn damaged(path: &Path, damage: Damage) -> Self {
        Self::Damaged { path: path.to_owned(), damage }
    }
}

/// Says of an [`io::Result`] what was tried, and on what.
trait IoContext<T> {
    fn context(self, operation: &'static str, path: &Path) -> Result<T, CheckpointError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, operation: &'static str, path: &Path) -> Result<T, CheckpointError> {
        self.map_err(|source| CheckpointError::io(operation, path, source))
    }
}

/// Which of a checkpoint's sets of parameters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Weights {
    /// As the optimiser left them.
    Raw,
    /// Their exponential moving average, from which one samples.
    #[default]
    Ema,
    /// That average as it was after the step `ema.early`: a weaker model, to be led away from.
    Early,
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Ema => "ema",
            Self::Early => "early",
        })
    }
}

/// What [`save`] writes. The four buffers are flat, with the tensors where `entries` say.
pub struct Contents<'a> {
    /// Step, counters and names; its `config` is filled in by [`save`].
    pub state: State,
    /// Text of `config.toml`.
    pub config: &'a str,
    /// Names, shapes and places of the tensors.
    pub entries: &'a [Entry<'a>],
    /// Parameters.
    pub weights: &'a dyn ReadFlat,
    /// Their moving average.
    pub ema: &'a dyn ReadFlat,
    /// Adam's first moment.
    pub m: &'a dyn ReadFlat,
    /// Adam's second moment.
    pub v: &'a dyn ReadFlat,
    /// What the objective has learned beside the network, if anything.
    pub more: &'a [More<'a>],
}

/// A file of tensors that only some runs have.
#[derive(Debug)]
pub struct More<'a> {
    /// Its name, such as [`LOSSES`].
    pub name: &'static str,
    /// Names, shapes and places of its tensors.
    pub entries: &'a [Entry<'a>],
    /// The buffers.
    pub sources: Vec<Source<'a>>,
}

impl fmt::Debug for Contents<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Writes a checkpoint into the folder `checkpoints` and returns its own folder, `checkpoints/step-000500`.
///
/// It is complete and on the disk when this returns; until then nothing of that name is there, or the older one of the
/// same step.
///
/// # Errors
/// [`CheckpointError::Io`]; what was written so far is removed.
pub fn save(checkpoints: &Path, contents: Contents<'_>) -> Result<PathBuf, CheckpointError> {
    let Contents { mut state, config, entries, weights, ema, m, v, more } = contents;
    let staged = Staged::begin(checkpoints, state.step)?;
    let mut files = BTreeMap::new();
    let tensors: [(&str, &[Source<'_>]); 3] = [
        (WEIGHTS, &[Source { prefix: "", data: weights }]),
        (EMA, &[Source { prefix: "", data: ema }]),
        (MOMENTS, &[Source { prefix: M, data: m }, Source { prefix: V, data: v }]),
    ];
    for (name, sources) in tensors {
        let record = staged.file(name, |mut out| tensors::write(&mut out, entries, sources))?;
        files.insert(name.to_owned(), record);
    }
    for More { name, entries, sources } in more {
        let record = staged.file(name, |mut out| tensors::write(&mut out, entries, sources))?;
        files.insert((*name).to_owned(), record);
    }
    let record = staged.file(CONFIG, |out| out.write_all(config.as_bytes()))?;
    state.config.clone_from(&record.blake3);
    files.insert(CONFIG.to_owned(), record);
    let manifest = Manifest::new(state, files);
    staged.file(STATE, |out| out.write_all(manifest.text().as_bytes()))?;
    staged.commit()
}

/// A checkpoint whose `state.json` and `config.toml` have been read and found sound. Its tensors are checked when they
/// are read, or all at once by [`Checkpoint::verify`].
#[derive(Debug, Clone)]
pub struct Checkpoint {
    folder: PathBuf,
    manifest: Manifest,
    config: String,
}

impl Checkpoint {
    /// Opens a checkpoint's folder.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] names the file and what is wrong with it.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(STATE);
        let mut text = Vec::new();
        open(&path)?.take(MAX_TEXT).read_to_end(&mut text).context("read", &path)?;
        let manifest = Manifest::parse(&text).map_err(|damage| CheckpointError::damaged(&path, damage))?;
        let checkpoint = Self { folder: folder.to_owned(), manifest, config: String::new() };
        for name in [WEIGHTS, EMA, MOMENTS, CONFIG] {
            checkpoint.record(name)?;
        }
        let config = String::from_utf8(checkpoint.file(CONFIG)?).map_err(|error| {
            let reason = error.utf8_error().to_string();
            CheckpointError::damaged(&folder.join(CONFIG), Damage::Json { reason })
        })?;
        Ok(Self { config, ..checkpoint })
    }

    /// Where the run stood.
    pub fn state(&self) -> &State {
        &self.manifest.state
    }

    /// Text of `config.toml`.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// Hash of the whole checkpoint, hexadecimal: equal for equal checkpoints only.
    pub fn hash(&self) -> &str {
        self.manifest.hash()
    }

    /// Version of the program that wrote it.
    pub fn version(&self) -> &str {
        self.manifest.version()
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes of all its files but `state.json`.
    pub fn bytes(&self) -> u64 {
        self.manifest.files.values().map(|record| record.bytes).sum()
    }

    /// Reads every file and compares it with its hash.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] with the first file that has changed.
    pub fn verify(&self) -> Result<(), CheckpointError> {
        for (name, record) in &self.manifest.files {
            let path = self.path(name)?;
            let mut hash = blake3::Hasher::new();
            let file = sized(&path, record.bytes)?;
            hash.update_reader(file.take(record.bytes)).context("read", &path)?;
            check(&path, record, &hash.finalize())?;
        }
        Ok(())
    }

    /// Whether it holds a set of parameters: [`Weights::Early`] only where the run keeps it.
    pub fn holds(&self, which: Weights) -> bool {
        self.manifest.files.contains_key(file_of(which))
    }

    /// Reads one set of parameters into a flat buffer.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`], or [`CheckpointError::Mismatch`] if they are another network's.
    pub fn read_weights(
        &self,
        which: Weights,
        entries: &[Entry<'_>],
        data: &mut dyn WriteFlat,
    ) -> Result<(), CheckpointError> {
        self.read_tensors(file_of(which), entries, &mut [Target { prefix: "", data }])
    }

    /// Reads Adam's moments into flat buffers.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`], or [`CheckpointError::Mismatch`] if they are another network's.
    pub fn read_moments(
        &self,
        entries: &[Entry<'_>],
        m: &mut dyn WriteFlat,
        v: &mut dyn WriteFlat,
    ) -> Result<(), CheckpointError> {
        self.read_tensors(MOMENTS, entries, &mut [Target { prefix: M, data: m }, Target { prefix: V, data: v }])
    }

    /// Reads the tensors of a file that only some runs have.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`], or [`CheckpointError::Mismatch`] if they are another run's.
    pub fn read_more(
        &self,
        name: &str,
        entries: &[Entry<'_>],
        targets: &mut [Target<'_>],
    ) -> Result<(), CheckpointError> {
        self.read_tensors(name, entries, targets)
    }

    fn read_tensors(
        &self,
        name: &str,
        entries: &[Entry<'_>],
        targets: &mut [Target<'_>],
    ) -> Result<(), CheckpointError> {
        let bytes = self.file(name)?;
        tensors::read(&bytes, entries, targets)
            .map_err(|reason| CheckpointError::Mismatch { path: self.folder.join(name), reason })
    }

    /// The bytes of a file, which are those that were written.
    fn file(&self, name: &str) -> Result<Vec<u8>, CheckpointError> {
        let record = self.record(name)?;
        let path = self.path(name)?;
        let file = sized(&path, record.bytes)?;
        let mut bytes = Vec::with_capacity(record.bytes as usize);
        file.take(record.bytes).read_to_end(&mut bytes).context("read", &path)?;
        check(&path, record, &blake3::hash(&bytes))?;
        Ok(bytes)
    }

    fn record(&self, name: &str) -> Result<&FileRecord, CheckpointError> {
        self.manifest.files.get(name).ok_or_else(|| {
            let damage = Damage::Unlisted { name: name.to_owned() };
            CheckpointError::damaged(&self.folder.join(STATE), damage)
        })
    }

    /// The path of a listed file, which must lie in this folder whatever the list says.
    fn path(&self, name: &str) -> Result<PathBuf, CheckpointError> {
        if name.starts_with('.') || name.contains(['/', '\\', ':']) {
            let damage = Damage::Json { reason: format!("{name:?} is no name of a file of a checkpoint") };
            return Err(CheckpointError::damaged(&self.folder.join(STATE), damage));
        }
        Ok(self.folder.join(name))
    }
}

/// The file of a set of parameters.
fn file_of(which: Weights) -> &'static str {
    match which {
        Weights::Raw => WEIGHTS,
        Weights::Ema => EMA,
        Weights::Early => EARLY,
    }
}

fn open(path: &Path) -> Result<File, CheckpointError> {
    File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CheckpointError::damaged(path, Damage::Missing),
        _ => CheckpointError::io("open", path, error),
    })
}

/// Opens a file that must have so many bytes.
fn sized(path: &Path, expected: u64) -> Result<File, CheckpointError> {
    let file = open(path)?;
    let got = file.metadata().context("read", path)?.len();
    if got != expected {
        return Err(CheckpointError::damaged(path, Damage::Length { expected, got }));
    }
    Ok(file)
}

fn check(path: &Path, record: &FileRecord, hash: &blake3::Hash) -> Result<(), CheckpointError> {
    let got = hash.to_hex();
    if got.as_str() != record.blake3 {
        let damage = Damage::Hash { expected: record.blake3.clone(), got: got.to_string() };
        return Err(CheckpointError::damaged(path, damage));
    }
    Ok(())
}

/// The newest sound checkpoint of a folder, and the newer ones that are not.
#[derive(Debug, Default)]
pub struct Newest {
    /// The newest that passed [`Checkpoint::verify`].
    pub checkpoint: Option<Checkpoint>,
    /// Steps and faults of those passed over, newest first.
    pub passed_over: Vec<(u64, CheckpointError)>,
}

impl Newest {
    /// One line on what was passed over, if anything was: which, why, and what is used instead.
    pub fn report(&self) -> Option<String> {
        let (step, error) = self.passed_over.first()?;
        let more = match self.passed_over.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        let instead = match &self.checkpoint {
            Some(checkpoint) => {
                format!("using the one before, of step {}", checkpoint.state().step)
            }
            None => "there is no other".to_owned(),
        };
        Some(format!("the checkpoint of step {step} cannot be used: {error}{more}; {instead}"))
    }
}

/// Finds the newest checkpoint in a folder that can be read, verifying each from the newest on.
///
/// # Errors
/// [`CheckpointError::Io`] if the folder itself cannot be read; damaged checkpoints are passed over and listed.
pub fn newest(checkpoints: &Path) -> Result<Newest, CheckpointError> {
    let mut found = Newest::default();
    for step in steps(checkpoints)?.into_iter().rev() {
        let folder = checkpoints.join(step_name(step));
        match Checkpoint::open(&folder).and_then(|checkpoint| checkpoint.verify().map(|()| checkpoint)) {
            Ok(checkpoint) => {
                found.checkpoint = Some(checkpoint);
                break;
            }
            Err(error) => found.passed_over.push((step, error)),
        }
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
