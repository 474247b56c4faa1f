//! Bytes of a data file: in memory or left in the file; and decompression that knows its limits.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::DataError;

/// Below this size no expansion is suspicious.
const FREE_EXPANSION: u64 = 64 << 20;
/// Above it, compressed bytes may not become more than this many times as many. (Deflate's own
/// limit is 1032; images, even black ones with a header each, stay below.)
const MOST_EXPANSION: u64 = 500;

/// Bytes that can be read at any position.
#[derive(Debug)]
pub(super) enum Bytes {
    Memory(Cow<'static, [u8]>),
    File { file: Mutex<File>, length: u64 },
}

impl Bytes {
    /// Leaves a file where it is.
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        let file = File::open(path).map_err(|e| DataError::io(path, "opening", e))?;
        let length = file.metadata().map_err(|e| DataError::io(path, "asking for its size", e))?.len();
        Ok(Self::File { file: Mutex::new(file), length })
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }

    /// Bytes that lie in memory.
    pub(super) fn slice(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let Self::Memory(bytes) = self else { return None };
        let start = usize::try_from(offset).ok()?;
        bytes.get(start..start.checked_add(length)?)
    }

    /// The first `n` bytes, or all if there are fewer.
    pub(super) fn prefix(&self, n: usize) -> io::Result<Vec<u8>> {
        let mut prefix = vec![0; usize::try_from(self.len()).unwrap_or(n).min(n)];
        self.read_at(0, &mut prefix).map(|()| prefix)
    }

    /// Fills `out` with the bytes from `offset` on.
    pub(super) fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Memory(_) => {
                out.copy_from_slice(self.slice(offset, out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            Self::File { file, .. } => {
                // A panic while the lock was held leaves only the position undefined, which is set here.
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(offset))?;
                file.read_exact(out)
            }
        }
    }
}

/// Whether a file begins as gzip does.
pub(super) fn is_gzip(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b])
}

/// The first `n` bytes of what a file holds, decompressed if it is gzip.
pub(super) fn head(path: &Path, n: usize) -> Result<Vec<u8>, DataError> {
    let reading = |e| DataError::io(path, "reading its beginning", e);
    let mut file = File::open(path).map_err(|e| DataError::io(path, "opening", e))?;
    let mut head = Vec::new();
    file.by_ref().take(n as u64).read_to_end(&mut head).map_err(reading)?;
    if is_gzip(&head) {
        file.seek(SeekFrom::Start(0)).map_err(reading)?;
        let mut inside = Vec::new();
        // Broken compressed data may still show its kind; it is named when all of it is read.
        let _ = flate2::read::MultiGzDecoder::new(file).take(n as u64).read_to_end(&mut inside);
        return Ok(inside);
    }
    Ok(head)
}

/// A data file, decompressed into memory if it is gzip, else left in the file.
///
/// `declared` is the size that the header inside announces; more than `limit` bytes are refused.
pub(super) fn open_maybe_gzip(path: &Path, declared: Option<u64>, limit: u64) -> Result<Bytes, DataError> {
    let bytes = Bytes::open(path)?;
    let mut magic = [0; 2];
    if bytes.read_at(0, &mut magic).is_err() || !is_gzip(&magic) {
        return Ok(bytes);
    }
    let length = bytes.len();
    let file = File::open(path).map_err(|e| DataError::io(path, "opening", e))?;
    let reader = flate2::read::MultiGzDecoder::new(io::BufReader::new(file));
    inflate(path, reader, length, declared, limit).map(|bytes| Bytes::Memory(Cow::Owned(bytes)))
}

/// Reads a decompressor to its end, but never further than its limits.
///
/// `compressed` is the size of what it reads, `declared` the size that a header announces. A short
/// stream is given back short: its reader knows better what is missing.
///
/// # Errors
/// [`DataError::TooLarge`] for what grows suspiciously or beyond `limit`, [`DataError::Format`] for
/// broken compressed data, or more of it than declared.
pub(super) fn inflate(
    path: &Path,
    reader: impl Read,
    compressed: u64,
    declared: Option<u64>,
    limit: u64,
) -> Result<Vec<u8>, DataError> {
    let too_large = |needs, limit, advice: &str| DataError::TooLarge {
        path: path.to_path_buf(),
        what: "what it holds compressed".to_owned(),
        needs,
        limit,
        advice: advice.to_owned(),
    };
    let again = "fetch or write the file again";
    let room = "store it uncompressed (it is then read image by image), or raise data.cache_bytes";
    let bomb = "that is over 500 times its compressed size, as no images are: it is not opened";
    let expansion = compressed.saturating_mul(MOST_EXPANSION).max(FREE_EXPANSION);
    match declared {
        Some(declared) if declared > limit => return Err(too_large(declared, limit, room)),
        Some(declared) if declared > expansion => return Err(too_large(declared, expansion, bomb)),
        _ => {}
    }
    let most = declared.unwrap_or(limit.min(expansion));
    let mut out = Vec::with_capacity(declared.and_then(|n| usize::try_from(n).ok()).unwrap_or(0));
    // One byte more than allowed tells "too much" from "just enough", and lets checksums be checked.
    reader
        .take(most.saturating_add(1))
        .read_to_end(&mut out)
        .map_err(|e| DataError::format(path, "whole compressed data", format!("a break ({e})"), again))?;
    let length = out.len() as u64;
    if length <= most {
        Ok(out)
    } else if let Some(declared) = declared {
        Err(DataError::format(path, format!("{declared} bytes, as its header says"), "more", again))
    } else if most == limit {
        Err(too_large(length, limit, room))
    } else {
        Err(too_large(length, expansion, bomb))
    }
}
