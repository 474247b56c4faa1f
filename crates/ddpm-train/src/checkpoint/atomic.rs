//! Folders that are there complete or not at all.
//!
//! A checkpoint is written into a folder whose name starts with a dot; every file is brought to the disk, then the
//! folder, then it is renamed to `step-000500` and its parent brought to the disk. So a folder named `step-*` is
//! complete whenever the process or the machine stops, and what starts with a dot may be thrown away. Removal goes the
//! other way round: renamed first, emptied then.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::fault;
use super::manifest::FileRecord;
use super::{CheckpointError, IoContext};

/// What the names of complete checkpoints begin with.
const PREFIX: &str = "step-";
/// What the names of damaged checkpoints, put aside, begin with.
const DAMAGED: &str = "damaged-";

/// The folder's name of the checkpoint of a step: `step-000500`.
pub fn step_name(step: u64) -> String {
    format!("{PREFIX}{step:06}")
}

/// The step that a folder's name tells, if it is a checkpoint's.
pub fn step_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    let step = digits.parse().ok()?;
    (step_name(step) == name).then_some(step)
}

/// The steps of the checkpoints in a folder, ascending; none if the folder is not there.
///
/// # Errors
/// [`CheckpointError::Io`] if the folder cannot be read.
pub fn steps(checkpoints: &Path) -> Result<Vec<u64>, CheckpointError> {
    let mut steps = Vec::new();
    for (name, _) in entries(checkpoints)? {
        steps.extend(step_of(&name));
    }
    steps.sort_unstable();
    Ok(steps)
}

/// Names and paths of what a folder holds; nothing if it is not there.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, CheckpointError> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CheckpointError::io("list", folder, error)),
    };
    let mut entries = Vec::new();
    for entry in listing {
        let entry = entry.context("list", folder)?;
        if let Ok(name) = entry.file_name().into_string() {
            entries.push((name, entry.path()));
        }
    }
    entries.sort_unstable();
    Ok(entries)
}

/// Removes what unfinished writes and removals left in a folder of checkpoints.
///
/// # Errors
/// [`CheckpointError::Io`] if something cannot be removed.
pub fn remove_unfinished(checkpoints: &Path) -> Result<(), CheckpointError> {
    for (name, path) in entries(checkpoints)? {
        if name.starts_with(&format!(".{PREFIX}")) {
            remove_folder(&path).context("remove the unfinished", &path)?;
        }
    }
    Ok(())
}

/// Puts a damaged checkpoint aside as `damaged-step-000500`, so that it is neither read nor counted again.
///
/// # Errors
/// [`CheckpointError::Io`] if it cannot be renamed.
pub fn put_aside(checkpoints: &Path, step: u64) -> Result<PathBuf, CheckpointError> {
    let from = checkpoints.join(step_name(step));
    let to = checkpoints.join(format!("{DAMAGED}{}", step_name(step)));
    if to.exists() {
        remove_folder(&to).context("remove", &to)?;
    }
    fault::point().and_then(|()| fs::rename(&from, &to)).context("put aside", &from)?;
    Ok(to)
}

/// Removes old checkpoints after `newest` was written: the last `keep` stay, and those whose step is a multiple of
/// `keep_every` (0: none do for that reason), and `newest` itself.
///
/// # Errors
/// [`CheckpointError::Io`] if one cannot be removed.
pub fn prune(checkpoints: &Path, newest: u64, keep: usize, keep_every: u64) -> Result<(), CheckpointError> {
    let mut steps = steps(checkpoints)?;
    steps.retain(|&step| step <= newest);
    let old = steps.len().saturating_sub(keep.max(1));
    for &step in &steps[..old] {
        if keep_every != 0 && step.is_multiple_of(keep_every) {
            continue;
        }
        let folder = checkpoints.join(step_name(step));
        remove_complete(checkpoints, step).context("remove the old", &folder)?;
    }
    Ok(())
}

/// Removes a complete checkpoint: out of sight first, so that no instant shows half of it.
fn remove_complete(checkpoints: &Path, step: u64) -> io::Result<()> {
    let hidden = checkpoints.join(format!(".{}.removed", step_name(step)));
    if hidden.exists() {
        remove_folder(&hidden)?;
    }
    fault::point()?;
    fs::rename(checkpoints.join(step_name(step)), &hidden)?;
    remove_folder(&hidden)
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() && !folder.is_symlink() {
        for entry in fs::read_dir(folder)? {
            remove_folder(&entry?.path())?;
        }
        fault::point()?;
        fs::remove_dir(folder)
    } else {
        fault::point()?;
        fs::remove_file(folder)
    }
}

/// Brings a folder's list of names to the disk. Only Unix lets one open a folder.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        fault::sync(&File::open(folder)?)?;
    }
    Ok(())
}

/// A folder on its way to be a checkpoint. Dropped before [`Staged::commit`], it is removed.
#[derive(Debug)]
pub struct Staged {
    parent: PathBuf,
    folder: PathBuf,
    step: u64,
    finished: bool,
}

impl Staged {
    /// Makes the empty folder `.step-000500.partial`, and the parent if need be.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] if the folders cannot be made.
    pub fn begin(checkpoints: &Path, step: u64) -> Result<Self, CheckpointError> {
        let folder = checkpoints.join(format!(".{}.partial", step_name(step)));
        if folder.exists() {
            remove_folder(&folder).context("remove the unfinished", &folder)?;
        }
        fault::point().and_then(|()| fs::create_dir_all(&folder)).context("make", &folder)?;
        Ok(Self { parent: checkpoints.to_owned(), folder, step, finished: false })
    }

    /// Writes one file, brings it to the disk, and returns its length and hash.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] if it cannot be written.
    pub fn file(
        &self,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<FileRecord, CheckpointError> {
        let path = self.folder.join(name);
        let attempt = || {
            fault::point()?;
            let mut out = Hashing { file: File::create_new(&path)?, bytes: 0, hash: blake3::Hasher::new() };
            let mut buffered = BufWriter::with_capacity(1 << 20, &mut out);
            write(&mut buffered)?;
            buffered.flush()?;
            drop(buffered);
            fault::sync(&out.file)?;
            Ok(FileRecord { bytes: out.bytes, blake3: out.hash.finalize().to_hex().to_string() })
        };
        attempt().context("write", &path)
    }

    /// Gives the folder its name, in place of an older one of the same step if there is one, and returns its path.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] if that fails.
    pub fn commit(mut self) -> Result<PathBuf, CheckpointError> {
        let target = self.parent.join(step_name(self.step));
        let attempt = || {
            sync_folder(&self.folder)?;
            let replaced = self.parent.join(format!(".{}.removed", step_name(self.step)));
            let replaces = target.exists();
            if replaces {
                if replaced.exists() {
                    remove_folder(&replaced)?;
                }
                fault::point()?;
                fs::rename(&target, &replaced)?;
            }
            fault::point()?;
            fs::rename(&self.folder, &target)?;
            sync_folder(&self.parent)?;
            if replaces {
                remove_folder(&replaced)?;
            }
            Ok(())
        };
        attempt().context("complete", &target)?;
        self.finished = true;
        Ok(target)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        #[cfg(test)]
        if fault::was_killed() {
            return;
        }
        if !self.finished {
            // What cannot be removed now is removed at the next start.
            drop(remove_folder(&self.folder));
        }
    }
}

/// Hashes and counts what it hands on to the file.
struct Hashing {
    file: File,
    bytes: u64,
    hash: blake3::Hasher,
}

impl Write for Hashing {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // A kill may come in the middle of a write: a part of it is then on the disk.
        if let Err(error) = fault::point() {
            self.file.write_all(&data[..data.len() / 2])?;
            return Err(error);
        }
        let written = self.file.write(data)?;
        self.hash.update(&data[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn make(checkpoints: &Path, step: u64) {
        let staged = Staged::begin(checkpoints, step).unwrap();
        staged.file("x", |out| out.write_all(b"x")).unwrap();
        staged.commit().unwrap();
    }

    #[test]
    fn names_and_steps() {
        assert_eq!(step_name(500), "step-000500");
        assert_eq!(step_of("step-000500"), Some(500));
        assert_eq!(step_of("step-1234567"), Some(1_234_567));
        for other in ["step-500", "step-+00500", ".step-000500.partial", "damaged-step-000500", "step-", "steps"] {
            assert_eq!(step_of(other), None, "{other}");
        }
    }

    #[test]
    fn the_last_and_every_nth_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        for step in 1..=10 {
            make(folder.path(), step);
            prune(folder.path(), step, 2, 4).unwrap();
        }
        assert_eq!(steps(folder.path()).unwrap(), [4, 8, 9, 10]);
        prune(folder.path(), 10, 0, 0).unwrap();
        assert_eq!(steps(folder.path()).unwrap(), [10], "the newest always stays");
    }

    #[test]
    fn what_is_later_than_the_newest_is_not_counted() {
        let folder = tempfile::tempdir().unwrap();
        for step in [3, 90, 4] {
            make(folder.path(), step);
        }
        prune(folder.path(), 4, 1, 0).unwrap();
        assert_eq!(steps(folder.path()).unwrap(), [4, 90]);
    }

    #[test]
    fn unfinished_folders_go_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), 7);
        drop(Staged::begin(folder.path(), 8).unwrap());
        assert!(!folder.path().join(".step-000008.partial").exists(), "dropped, it is removed");
        for name in [".step-000009.partial", ".step-000003.removed", ".git"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("file"), "half").unwrap();
        }
        remove_unfinished(folder.path()).unwrap();
        let left: Vec<_> = entries(folder.path()).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(left, [".git", "step-000007"]);
    }

    #[test]
    fn a_step_is_written_over_itself() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), 7);
        let staged = Staged::begin(folder.path(), 7).unwrap();
        staged.file("y", |out| out.write_all(b"y")).unwrap();
        let path = staged.commit().unwrap();
        assert!(path.join("y").exists() && !path.join("x").exists());
        assert_eq!(entries(folder.path()).unwrap().len(), 1);
    }

    #[test]
    fn nothing_is_there_before_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("checkpoints");
        assert!(steps(&missing).unwrap().is_empty());
        remove_unfinished(&missing).unwrap();
    }
}
