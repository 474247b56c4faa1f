//! Where a write can fail, so that tests can make each of them fail.
//!
//! Every step that changes the disk passes through [`point`]. In a build for use it does nothing; in this crate's
//! tests the k-th one can be made to fail, with the disk left as it is at that instant: what a kill leaves behind.

use std::fs::File;
use std::io;

/// Brings a file, or a folder's list of names, to the disk. Tests go without: no kill can tell.
pub(super) fn sync(file: &File) -> io::Result<()> {
    point()?;
    if cfg!(test) { Ok(()) } else { file.sync_all() }
}

/// Passed before each change of the disk.
#[cfg(not(test))]
#[inline]
#[allow(clippy::unnecessary_wraps)] // it fails in tests
pub(super) fn point() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(super) use injected::{fail_at, passed, point, was_killed};

#[cfg(test)]
mod injected {
    use super::io;
    use std::cell::Cell;

    thread_local! {
        static PASSED: Cell<usize> = const { Cell::new(0) };
        static FAIL_AT: Cell<Option<(usize, bool)>> = const { Cell::new(None) };
    }

    pub(in crate::checkpoint) fn point() -> io::Result<()> {
        let passed = PASSED.replace(PASSED.get() + 1);
        match FAIL_AT.get() {
            // After a kill nothing more reaches the disk, tidying up included; a full disk fails once.
            Some((at, kill)) if passed == at || (kill && passed > at) => {
                Err(io::Error::new(io::ErrorKind::StorageFull, "made to fail"))
            }
            _ => Ok(()),
        }
    }

    /// Starts to count anew on this thread; the `at`-th point fails, and with `kill` every later one too.
    pub(in crate::checkpoint) fn fail_at(at: Option<usize>, kill: bool) {
        PASSED.set(0);
        FAIL_AT.set(at.map(|at| (at, kill)));
    }

    /// Points passed since [`fail_at`].
    pub(in crate::checkpoint) fn passed() -> usize {
        PASSED.get()
    }

    /// Whether the process is to be taken for dead: no tidying up either.
    pub(in crate::checkpoint) fn was_killed() -> bool {
        matches!(FAIL_AT.get(), Some((at, true)) if PASSED.get() > at)
    }
}
