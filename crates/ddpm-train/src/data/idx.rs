//! The IDX files of MNIST, Fashion-MNIST, KMNIST and EMNIST, plain or gzip.
//!
//! Two zero bytes, the type of number (8: u8), the number of axes, then each side as a big-endian
//! `u32`, then the numbers.

use std::path::{Path, PathBuf};

use super::array::{ArrayPictures, Element, Part};
use super::bytes;
use super::source::Found;
use super::{DataError, DataOptions, Range, Source, folder};

/// Number of axes, if these bytes begin an IDX file of `u8`.
pub(super) fn axes(head: &[u8]) -> Option<usize> {
    match *head {
        [0, 0, 8, axes @ 1..=4, ..] => Some(usize::from(axes)),
        _ => None,
    }
}

/// Whether these bytes begin an IDX file of images: `[N, H, W]`, or `[N, H, W, C]`.
pub(super) fn is_images(head: &[u8]) -> bool {
    matches!(axes(head), Some(3 | 4))
}

/// Sides from a header.
fn shape(path: &Path) -> Result<Vec<u64>, DataError> {
    let head = bytes::head(path, 20)?;
    let axes = axes(&head).unwrap_or(0);
    let sides: Vec<u64> = head
        .get(4..4 + 4 * axes)
        .unwrap_or_default()
        .chunks_exact(4)
        .map(|side| side.iter().fold(0, |n, &byte| n << 8 | u64::from(byte)))
        .collect();
    if axes == 0 || sides.len() < axes {
        return Err(DataError::format(path, "an IDX header", "one that is cut short", "fetch the file again"));
    }
    Ok(sides)
}

/// Opens an images file, or every images file of a folder.
pub(super) fn open(path: &Path, options: &DataOptions) -> Result<Found, DataError> {
    let mut notes = Vec::new();
    let files = if path.is_dir() {
        let all = folder::files_in(path)?;
        let images: Vec<PathBuf> =
            all.into_iter().filter(|file| bytes::head(file, 4).is_ok_and(|head| is_images(&head))).collect();
        folder::without_test_part(images, &mut notes)
    } else {
        vec![path.to_path_buf()]
    };
    let mut parts = Vec::new();
    let mut labels = options.classes.then(Vec::new);
    let mut common: Option<(u64, u64, u64)> = None;
    for file in files {
        let sides = shape(&file)?;
        let &[n, h, w, ref rest @ ..] = sides.as_slice() else {
            return Err(DataError::format(
                &file,
                "an IDX file of images",
                format!("sides {sides:?}"),
                "give the images",
            ));
        };
        let form = (h, w, rest.first().copied().unwrap_or(1));
        let image = h.checked_mul(w).and_then(|n| n.checked_mul(form.2));
        let offset = 4 + 4 * sides.len() as u64;
        let end = image.and_then(|image| image.checked_mul(n)?.checked_add(offset));
        let (Some(stride), Some(end), 1 | 3 | 4) = (image, end, form.2) else {
            return Err(DataError::format(
                &file,
                "images of 1, 3 or 4 channels",
                format!("sides {sides:?}"),
                "fetch the file again",
            ));
        };
        if n == 0 || stride == 0 {
            return Err(DataError::Empty { path: file, found: format!("an IDX file with sides {sides:?}") });
        }
        if common.is_some_and(|common| common != form) {
            return Err(DataError::format(
                &file,
                "images of one size in the folder's files",
                format!("sides {sides:?}"),
                "give one file alone",
            ));
        }
        common = Some(form);
        let bytes = bytes::open_maybe_gzip(&file, Some(end), options.budget())?;
        if let Some(all) = &mut labels {
            match labels_beside(&file, n, options.budget())? {
                Some(part) => all.extend(part),
                None => labels = None,
            }
        }
        let count = usize::try_from(n).unwrap_or(usize::MAX);
        parts.push(Part { path: file, bytes, offset, stride, count });
    }
    let (h, w, c) = common.unwrap_or_default();
    let pictures = ArrayPictures {
        parts,
        element: Element::U8,
        big_endian: true,
        channels_first: false,
        height: h as usize,
        width: w as usize,
        channels: c as usize,
        range: Range::Byte,
    };
    pictures.check_length()?;
    Ok(Found { source: Source::Idx, pictures: Box::new(pictures), labels, classes: None, skipped: Vec::new(), notes })
}

/// The labels that belong to a file of `n` images: the file named alike, else the only one with
/// as many labels.
fn labels_beside(images: &Path, n: u64, limit: u64) -> Result<Option<Vec<u32>>, DataError> {
    let folder = images.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fitting: Vec<PathBuf> = folder::files_in(folder)?
        .into_iter()
        .filter(|file| bytes::head(file, 8).is_ok_and(|head| axes(&head) == Some(1)))
        .filter(|file| shape(file).is_ok_and(|sides| sides == [n]))
        .collect();
    let stem = |file: &Path| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name).to_owned();
        name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1")
    };
    let wanted = stem(images);
    let named = fitting.iter().find(|file| stem(file) == wanted);
    let Some(file) = named.or(fitting.first().filter(|_| fitting.len() == 1)) else { return Ok(None) };
    let bytes = bytes::open_maybe_gzip(file, Some(8 + n), limit)?;
    let mut labels = vec![0; usize::try_from(n).unwrap_or(0)];
    bytes.read_at(8, &mut labels).map_err(|_| {
        DataError::format(file, format!("{n} labels"), "fewer", "the file is cut short: fetch it again")
    })?;
    Ok(Some(labels.into_iter().map(u32::from).collect()))
}
