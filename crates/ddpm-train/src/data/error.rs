//! What can go wrong while images are found, read and served.

use std::io;
use std::path::PathBuf;

/// An error of a data set: names the file, what was expected, what came, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Nothing is at the given path.
    #[error("{}: there is no such file or folder; check the path of the data", path.display())]
    Missing {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The operating system refused or failed.
    #[error("{}: {doing} failed: {source}; check that it is there and that you may read it", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was being done, for example `opening`.
        doing: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The content is of no kind that is read here.
    #[error("{}: not a data set that is known here: it {found}; expected a folder of pictures, \
             .npz, .npy, MNIST IDX or CIFAR binaries (each plain or gzip){advice}", path.display())]
    Unrecognised {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: String,
        /// What to do, beginning with `; `, or empty.
        advice: &'static str,
    },
    /// A file of a known kind whose content does not fit.
    #[error("{}: expected {expected}, found {found}; {advice}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
        /// What to do.
        advice: String,
    },
    /// No image is left to learn from.
    #[error("{}: no images: {found}; expected PNG, JPEG, WebP, GIF, BMP or TIFF pictures in it or \
             its sub-folders, or an array of at least one image", path.display())]
    Empty {
        /// File or folder.
        path: PathBuf,
        /// What was there instead.
        found: String,
    },
    /// A picture that cannot be decoded.
    #[error("{}: this picture cannot be decoded: {reason}; repair or remove it, or set \
             data.on_error = \"skip\" to go on without it", path.display())]
    Picture {
        /// The picture.
        path: PathBuf,
        /// The decoder's reason.
        reason: String,
    },
    /// Images of different sizes and no size asked for.
    #[error("{}: its images differ in size: {first} is {}x{}, {other} is {}x{} (height x width); \
             set data.size, for example data.size = 64, and they are resized as data.crop says",
            path.display(), first_size.0, first_size.1, other_size.0, other_size.1)]
    Mixed {
        /// The data set.
        path: PathBuf,
        /// The first image.
        first: String,
        /// Its height and width.
        first_size: (usize, usize),
        /// The first image that differs from it.
        other: String,
        /// Its height and width.
        other_size: (usize, usize),
    },
    /// A pixel is NaN or infinite.
    #[error("{}: image {image} has the value {value} at row {row}, column {column}, channel \
             {channel}; expected finite pixels: correct it, or set data.on_error = \"skip\"", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Number of the image, from 0.
        image: usize,
        /// `NaN`, `inf` or `-inf`.
        value: f64,
        /// Row, from 0 at the top.
        row: usize,
        /// Column, from 0 at the left.
        column: usize,
        /// Channel, from 0.
        channel: usize,
    },
    /// A pixel lies outside the range of values that the array is said or seen to have.
    #[error("{}: image {image} holds pixels from {least} to {most}; expected {expected}: set \
             data.range to \"0..1\", \"-1..1\" or \"0..255\", or rescale the array", path.display())]
    OutOfRange {
        /// The file.
        path: PathBuf,
        /// Number of the image, from 0.
        image: usize,
        /// Least value of it.
        least: f64,
        /// Greatest value of it.
        most: f64,
        /// The range that was expected.
        expected: String,
    },
    /// More memory or a larger expansion than is allowed.
    #[error("{}: {what} would need {needs} bytes, over the limit of {limit}; {advice}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is so large.
        what: String,
        /// Bytes it would take.
        needs: u64,
        /// Bytes that are allowed.
        limit: u64,
        /// What to do.
        advice: String,
    },
    /// An option out of its range.
    #[error("{key}: expected {expected}, got {found}")]
    Option {
        /// The setting's key, for example `data.holdout`.
        key: &'static str,
        /// Values it may have.
        expected: String,
        /// The value it had.
        found: String,
    },
    /// Fewer images than one batch holds.
    #[error(
        "{path}: {train} images to train on ({heldout} of {count} are held out), fewer than one \
             batch of {batch}; give a batch of at most {train}, or more images"
    )]
    SmallerThanBatch {
        /// The data set.
        path: String,
        /// Images in all.
        count: usize,
        /// Images to train on.
        train: usize,
        /// Images held out.
        heldout: usize,
        /// The batch that was asked for.
        batch: usize,
    },
    /// A file gives other pixels than when it was first read.
    #[error("{name}: has changed since this run first read it; restore it, or start a new run")]
    Changed {
        /// The image.
        name: String,
    },
    /// A call that does not fit the data set.
    #[error("{operation}: expected {expected}, got {found}")]
    Call {
        /// The operation.
        operation: &'static str,
        /// What it takes.
        expected: String,
        /// What it was given.
        found: String,
    },
    /// The background thread that reads ahead is gone.
    #[error("reading ahead: the thread that prepares batches has stopped; start again from the last checkpoint")]
    ReadAhead,
}

impl DataError {
    /// An [`DataError::Io`], or [`DataError::Missing`] where that is the reason.
    pub(super) fn io(path: &std::path::Path, doing: &'static str, source: io::Error) -> Self {
        let path = path.to_path_buf();
        if source.kind() == io::ErrorKind::NotFound { Self::Missing { path } } else { Self::Io { path, doing, source } }
    }

    /// A [`DataError::Format`].
    pub(super) fn format(
        path: &std::path::Path,
        expected: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::Format { path: path.to_path_buf(), expected: expected.into(), found: found.into(), advice: advice.into() }
    }
}
