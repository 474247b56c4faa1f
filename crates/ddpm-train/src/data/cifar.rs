//! CIFAR-10 and CIFAR-100 in their binary versions, plain or gzip.
//!
//! Records of one label byte (CIFAR-100: a coarse and a fine one) and 3072 bytes of pixels: 32x32,
//! all red ones first, then green, then blue. There is no header, so a file is recognised by its
//! size and by every label being in range.

use std::path::{Path, PathBuf};

use super::array::{ArrayPictures, Element, Part};
use super::bytes::{self, Bytes};
use super::source::Found;
use super::{DataError, DataOptions, Range, Source, folder};

const SIDE: usize = 32;
const PIXELS: u64 = 3072;

/// Labels before the pixels of a record, with the number of values that each has.
fn label_ranges(source: Source) -> &'static [u8] {
    if source == Source::Cifar100 { &[20, 100] } else { &[10] }
}

fn record(source: Source) -> u64 {
    label_ranges(source).len() as u64 + PIXELS
}

/// Recognises a file. Only what has the right size is looked through.
pub(super) fn recognise(path: &Path) -> Result<Option<Source>, DataError> {
    let plain = Bytes::open(path)?;
    let head = plain.prefix(2).map_err(|e| DataError::io(path, "reading its beginning", e))?;
    if !bytes::is_gzip(&head) {
        return Ok(kind(&plain));
    }
    // The size of compressed data is known only afterwards; no single file of CIFAR reaches the limit.
    let inside = bytes::open_maybe_gzip(path, None, MOST_COMPRESSED);
    Ok(inside.ok().as_ref().and_then(kind))
}

/// Largest file that is decompressed to see whether it is CIFAR: the largest of theirs has 154 MB.
const MOST_COMPRESSED: u64 = 1 << 29;

fn kind(bytes: &Bytes) -> Option<Source> {
    let fits = |source: &Source| {
        let (record, ranges) = (record(*source), label_ranges(*source));
        let mut labels = [0; 2];
        let labels = &mut labels[..ranges.len()];
        bytes.len() > 0
            && bytes.len().is_multiple_of(record)
            && (0..bytes.len() / record).all(|n| {
                bytes.read_at(n * record, labels).is_ok()
                    && labels.iter().zip(ranges).all(|(label, range)| label < range)
            })
    };
    [Source::Cifar10, Source::Cifar100].into_iter().find(fits)
}

/// Opens one file, or every file of a folder in the order of their names.
pub(super) fn open(path: &Path, options: &DataOptions) -> Result<Found, DataError> {
    let mut notes = Vec::new();
    let (folder, files) = if path.is_dir() {
        let all = folder::files_in(path)?;
        let files: Vec<PathBuf> = all.into_iter().filter(|file| matches!(recognise(file), Ok(Some(_)))).collect();
        (path, folder::without_test_part(files, &mut notes))
    } else {
        (path.parent().unwrap_or(Path::new("")), vec![path.to_path_buf()])
    };
    let mut parts = Vec::new();
    let mut labels = options.classes.then(Vec::new);
    let mut common = None;
    for file in files {
        let bytes = bytes::open_maybe_gzip(&file, None, options.budget())?;
        let source = kind(&bytes).filter(|source| common.is_none_or(|common| common == *source)).ok_or_else(|| {
            DataError::format(&file, "CIFAR binaries of one kind", "another", "give one file, or separate the files")
        })?;
        common = Some(source);
        let (stride, offset) = (record(source), record(source) - PIXELS);
        let count = bytes.len() / stride;
        if let Some(labels) = &mut labels {
            for n in 0..count {
                // Of CIFAR-100's two labels, the second is the fine one.
                let mut label = [0];
                bytes
                    .read_at(n * stride + offset - 1, &mut label)
                    .map_err(|e| DataError::io(&file, "reading labels", e))?;
                labels.push(u32::from(label[0]));
            }
        }
        parts.push(Part { path: file, bytes, offset, stride, count: count as usize });
    }
    let Some(source) = common else {
        return Err(DataError::Empty { path: path.to_path_buf(), found: "no CIFAR binaries".to_owned() });
    };
    let names = if source == Source::Cifar100 { "fine_label_names.txt" } else { "batches.meta.txt" };
    let classes = class_names(&folder.join(names), usize::from(*label_ranges(source).last().unwrap_or(&0)));
    let pictures = ArrayPictures {
        parts,
        element: Element::U8,
        big_endian: false,
        channels_first: true,
        height: SIDE,
        width: SIDE,
        channels: 3,
        range: Range::Byte,
    };
    Ok(Found { source, pictures: Box::new(pictures), labels, classes, skipped: Vec::new(), notes })
}

/// The names that come with the files, one a line, if there are as many as classes.
fn class_names(file: &Path, count: usize) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(file).ok()?;
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(ToOwned::to_owned).collect();
    (names.len() == count).then_some(names)
}
