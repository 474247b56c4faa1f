//! Images to learn from: found, recognised by what they hold, decoded, and served in batches.
//!
//! [`open`] takes a folder of pictures, NumPy `.npz`/`.npy`, MNIST's IDX or CIFAR's binaries (plain
//! or gzip) and gives a [`DataSet`]; [`digits`] and [`emoji`] are part of the program. A [`Loader`]
//! turns (seed, step, position) into images: nothing else decides what a batch holds.
//!
//! | file | idea |
//! |---|---|
//! | `options` | the settings `data.*` |
//! | `source` | what kind of data set is it |
//! | `folder`, `npy`, `idx`, `cifar` | the kinds |
//! | `array` | images in an array, whatever its type, layout and range |
//! | `bytes` | a file's bytes, and decompression with limits |
//! | `pixels` | channels, resizing, cropping of one picture |
//! | `survey` | sizes and colours of all images, then their decoding |
//! | `cache` | what stays in memory |
//! | `dataset` | images of one size, split, hashed |
//! | `permutation`, `loader`, `read_ahead` | which image when, mirrored or not; batches |
//! | `embedded` | the images within the program |
//! | `picture`, `nearest` | one picture file; a set's images nearest to others |

mod array;
mod bytes;
mod cache;
mod cifar;
mod dataset;
mod embedded;
mod error;
mod folder;
mod idx;
mod loader;
mod nearest;
mod npy;
mod options;
mod permutation;
mod picture;
mod pixels;
mod read_ahead;
mod source;
mod survey;

pub use dataset::DataSet;
pub use embedded::{digits, emoji};
pub use error::DataError;
pub use loader::{Draw, Loader};
pub use nearest::{Neighbours, nearest};
pub use options::{Crop, DataOptions, Filter, Layout, OnError, Range, Size};
pub use permutation::Permutation;
pub use picture::{Picture, picture};
pub use read_ahead::ReadAhead;
pub use source::{Skipped, Source, recognise};
pub use survey::{Survey, open, survey};
