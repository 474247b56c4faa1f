//! Kinds of data sets, and how one is recognised by what it holds.

use std::path::Path;

use super::pixels::{Form, Pixels};
use super::{DataError, DataOptions, bytes, cifar, embedded, folder, idx, npy};

/// A kind of data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A folder of picture files.
    Folder,
    /// NumPy arrays in an archive.
    Npz,
    /// One NumPy array.
    Npy,
    /// The files of MNIST and its kin.
    Idx,
    /// CIFAR-10 in its binary version.
    Cifar10,
    /// CIFAR-100 in its binary version.
    Cifar100,
    /// Part of this program.
    Embedded,
    /// Pixels handed over by a caller.
    Memory,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Folder => "folder of pictures",
            Self::Npz => ".npz archive",
            Self::Npy => ".npy array",
            Self::Idx => "MNIST IDX files",
            Self::Cifar10 => "CIFAR-10 binaries",
            Self::Cifar100 => "CIFAR-100 binaries",
            Self::Embedded => "embedded images",
            Self::Memory => "images in memory",
        })
    }
}

/// An image that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file, or the image's number in it.
    pub name: String,
    /// The error it would have been.
    pub reason: String,
}

/// What the header of an image says of its colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Grey,
    Rgb,
    /// Only its pixels tell.
    Unknown,
}

/// What is known of an image before it is decoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) colour: Colour,
}

/// Images that can be read in any order, as often as wished.
pub(super) trait Pictures: Send + Sync + std::fmt::Debug {
    fn len(&self) -> usize;
    /// The image's name for people.
    fn name(&self, index: usize) -> String;
    fn header(&self, index: usize) -> Result<Header, DataError>;
    fn read(&self, index: usize) -> Result<Pixels, DataError>;
    /// The image's bytes, if they lie in memory in just this form, so that a cache would gain nothing.
    fn borrow(&self, _index: usize, _form: &Form) -> Option<&[u8]> {
        None
    }
}

/// A data set as it was found, before its images are decoded.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) source: Source,
    pub(super) pictures: Box<dyn Pictures>,
    /// One label an image, if labels are wanted and there.
    pub(super) labels: Option<Vec<u32>>,
    /// Names of classes, if any are known.
    pub(super) classes: Option<Vec<String>>,
    /// Images already known to be unusable, by index.
    pub(super) skipped: Vec<(usize, Skipped)>,
    /// What a user should hear about how the data was understood.
    pub(super) notes: Vec<String>,
}

/// Recognises a data set by its content.
///
/// # Errors
/// [`DataError::Unrecognised`], [`DataError::Missing`], [`DataError::Empty`] or [`DataError::Io`].
pub fn recognise(path: &Path) -> Result<Source, DataError> {
    if embedded::is_bundled(path) {
        return Ok(Source::Embedded);
    }
    let meta = std::fs::metadata(path).map_err(|e| DataError::io(path, "looking at it", e))?;
    if meta.is_dir() {
        return folder::recognise(path);
    }
    recognise_file(path)
}

/// Recognises one file.
pub(super) fn recognise_file(path: &Path) -> Result<Source, DataError> {
    let head = bytes::head(path, 512)?;
    let unknown = |found: &str, advice| {
        Err(DataError::Unrecognised { path: path.to_path_buf(), found: found.to_owned(), advice })
    };
    if head.starts_with(npy::NPZ_MAGIC) {
        return Ok(Source::Npz);
    }
    if head.starts_with(npy::NPY_MAGIC) {
        return Ok(Source::Npy);
    }
    if idx::is_images(&head) {
        return Ok(Source::Idx);
    }
    if head.starts_with(&[0, 0]) && idx::axes(&head) == Some(1) {
        return unknown("holds MNIST labels", "; give the images beside them, or their folder");
    }
    if folder::picture_format(&head).is_some() {
        return unknown("is a single picture", "; give the folder it lies in");
    }
    if let Some(source) = cifar::recognise(path)? {
        return Ok(source);
    }
    if head.is_empty() {
        return unknown("is empty", "; fetch or write it again");
    }
    if head.starts_with(b"PAR1") {
        return unknown("is a Parquet file", "; write its images into a folder or an .npz first");
    }
    if head.starts_with(b"\x89HDF") {
        return unknown("is an HDF5 or MATLAB file", "; save its images with numpy.savez first");
    }
    if head.starts_with(&[0x80]) && head.get(1).is_some_and(|&version| (2..=5).contains(&version)) {
        return unknown(
            "is a Python pickle",
            "; pickles can run code and are not opened: use the binary version, or numpy.savez",
        );
    }
    if head.get(257..262) == Some(b"ustar") {
        return unknown("is a tar archive", "; unpack it and give the folder");
    }
    let shown: Vec<String> = head.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    unknown(&format!("begins with the bytes {}", shown.join(" ")), "")
}

/// Finds the images of a data set, without decoding them.
pub(super) fn find(path: &Path, options: &DataOptions) -> Result<Found, DataError> {
    match recognise(path)? {
        Source::Embedded => embedded::find(path, options),
        Source::Npz => npy::open_npz(&array_file(path)?, options),
        Source::Npy => npy::open_npy(&array_file(path)?, options),
        Source::Idx => idx::open(path, options),
        Source::Cifar10 | Source::Cifar100 => cifar::open(path, options),
        _ => folder::open(path, options),
    }
}

/// The array file itself, or the only one in a folder.
fn array_file(path: &Path) -> Result<std::path::PathBuf, DataError> {
    if path.is_dir() { folder::only_array(path) } else { Ok(path.to_path_buf()) }
}
