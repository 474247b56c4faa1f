//! The images that are part of the program, so that it works from any folder.
//!
//! Their origin and licences: `data/README.md`.

use std::io::Cursor;
use std::path::Path;

use super::source::Found;
use super::{DataError, DataOptions, DataSet, Source, npy, open};

const DIGITS: &[u8] = include_bytes!("../../../../data/digits28.npz");
const EMOJI: &[u8] = include_bytes!("../../../../data/emoji32.npz");

const DIGIT_CLASSES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
const EMOJI_CLASSES: [&str; 9] = [
    "Activities",
    "Animals & Nature",
    "Flags",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
];

/// What stands before the name of an embedded set where a path is expected.
const PREFIX: &str = "bundled:";

/// 10,000 handwritten digits, 28x28x1, 10 classes: a part of MNIST (LeCun, Cortes and Burges).
///
/// The same as [`open`] of `bundled:digits`.
///
/// # Errors
/// Those of `options`.
pub fn digits(options: &DataOptions) -> Result<DataSet, DataError> {
    open(Path::new("bundled:digits"), options)
}

/// 1,906 emoji, 32x32x3 on white, 9 classes: Noto Emoji (© Google, Apache License 2.0).
///
/// The same as [`open`] of `bundled:emoji`.
///
/// # Errors
/// Those of `options`.
pub fn emoji(options: &DataOptions) -> Result<DataSet, DataError> {
    open(Path::new("bundled:emoji"), options)
}

/// Whether a path names an embedded set.
pub(super) fn is_bundled(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.starts_with(PREFIX))
}

/// The images of an embedded set.
pub(super) fn find(path: &Path, options: &DataOptions) -> Result<Found, DataError> {
    let name = path.to_str().and_then(|path| path.strip_prefix(PREFIX)).unwrap_or_default();
    let (archive, classes) = match name {
        "digits" => (DIGITS, DIGIT_CLASSES.as_slice()),
        "emoji" => (EMOJI, EMOJI_CLASSES.as_slice()),
        _ => {
            return Err(DataError::format(
                path,
                "bundled:digits or bundled:emoji",
                format!("the name `{name}`"),
                "take one of these, or give the path of a folder or file",
            ));
        }
    };
    let mut found = npy::read_npz(path, Source::Embedded, Cursor::new(archive), options)?;
    found.classes = Some(classes.iter().map(|&class| class.to_owned()).collect());
    Ok(found)
}
