//! The images that are part of the program, so that it works from any folder.
//!
//! Their origin and licences: `data/README.md`.

use std::io::Cursor;
use std::path::Path;

use super::{DataError, DataOptions, DataSet, Source, Survey, npy};

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

/// 10,000 handwritten digits, 28x28x1, 10 classes: a part of MNIST (LeCun, Cortes and Burges).
///
/// # Errors
/// Those of `options`.
pub fn digits(options: &DataOptions) -> Result<DataSet, DataError> {
    embedded("digits", DIGITS, &DIGIT_CLASSES, options)
}

/// 1,906 emoji, 32x32x3 on white, 9 classes: Noto Emoji (© Google, Apache License 2.0).
///
/// # Errors
/// Those of `options`.
pub fn emoji(options: &DataOptions) -> Result<DataSet, DataError> {
    embedded("emoji", EMOJI, &EMOJI_CLASSES, options)
}

fn embedded(name: &str, archive: &'static [u8], classes: &[&str], options: &DataOptions) -> Result<DataSet, DataError> {
    options.check()?;
    let path = Path::new(name);
    let mut found = npy::read_npz(path, Source::Embedded, Cursor::new(archive), options)?;
    found.classes = Some(classes.iter().map(|&class| class.to_owned()).collect());
    let size = options.size.map(|size| (size.height, size.width));
    Survey::new(path, found, options)?.load(size)
}
