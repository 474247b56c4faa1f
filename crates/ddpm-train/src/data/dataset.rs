//! Images of one size, ready to be served.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::array::{ArrayPictures, Element, Part};
use super::bytes::Bytes;
use super::cache::Cache;
use super::source::{Found, Pictures, Skipped, Source};
use super::{DataError, DataOptions, Survey};

/// Value of each byte in the range that a network sees: `x/127.5 − 1`.
fn symmetric(byte: u8) -> f32 {
    f32::from(byte) / 127.5 - 1.0
}

/// Which part of an image that is larger than the set's size is taken.
#[derive(Clone, Copy, Debug)]
pub(super) enum Window {
    Centre,
    /// Offsets from top and left, as parts of 2^32 of the possible ones.
    At(u32, u32),
}

impl Window {
    /// Offset among `spare + 1` possible ones.
    fn offset(self, spare: usize, down: bool) -> usize {
        match self {
            Self::Centre => spare / 2,
            Self::At(top, left) => (((spare as u64 + 1) * u64::from(if down { top } else { left })) >> 32) as usize,
        }
    }
}

/// Images of one size, with or without labels, in a fixed order; the last ones are held out.
#[derive(Debug)]
pub struct DataSet {
    source: Source,
    path: PathBuf,
    pictures: Box<dyn Pictures>,
    /// The number in `pictures` of each image.
    numbers: Vec<usize>,
    cache: Cache,
    labels: Option<Vec<u32>>,
    classes: Option<Vec<String>>,
    hash: String,
    heldout: usize,
    flip: bool,
    skipped: Vec<Skipped>,
    notes: Vec<String>,
}

impl DataSet {
    /// The set of the images that a survey kept and that went through `cache`.
    pub(super) fn new(survey: Survey, cache: Cache) -> Result<Self, DataError> {
        let Survey { path, found, options, kept: numbers, skipped, .. } = survey;
        let Found { source, pictures, labels, classes, mut notes, .. } = found;
        let count = numbers.len();
        let labels = labels.filter(|_| options.classes);
        let labels = labels.map(|labels| numbers.iter().map(|&number| labels[number]).collect::<Vec<u32>>());
        let classes = match &labels {
            Some(labels) => Some(class_names(&path, labels, classes)?),
            None => None,
        };
        let mut heldout = (count as f64 * options.holdout).round() as usize;
        if options.holdout > 0.0 {
            heldout = heldout.max(1);
        }
        if heldout >= count {
            heldout = count - 1;
            notes.push(format!(
                "of {count} images, data.holdout = {} leaves {heldout} held out and {} to train on",
                options.holdout,
                count - heldout
            ));
        }
        let hash = hash(&cache, labels.as_deref());
        let flip = options.flip;
        Ok(Self { source, path, pictures, numbers, cache, labels, classes, hash, heldout, flip, skipped, notes })
    }

    /// A set of pixels that a caller has: `images` is `[count, height, width, channels]`.
    ///
    /// `name` stands for a path in messages. With `options.classes` there must be labels; without
    /// names of classes these are called `0`, `1` and so on.
    ///
    /// # Errors
    /// [`DataError::Call`] if the sizes do not fit, or any that [`super::open`] has.
    pub fn from_pixels(
        name: &str,
        images: Vec<u8>,
        [count, height, width, channels]: [usize; 4],
        labels: Option<Vec<u32>>,
        classes: Option<Vec<String>>,
        options: &DataOptions,
    ) -> Result<Self, DataError> {
        options.check()?;
        let wanted = [height, width, channels].iter().try_fold(count, |n, &side| n.checked_mul(side));
        if wanted != Some(images.len()) || images.is_empty() || !matches!(channels, 1 | 3 | 4) {
            return Err(DataError::Call {
                operation: "DataSet::from_pixels",
                expected: format!("the bytes of {count} images of {height}x{width}x{channels} (1, 3 or 4 channels)"),
                found: format!("{} bytes", images.len()),
            });
        }
        let pictures = ArrayPictures {
            parts: vec![Part {
                path: PathBuf::from(name),
                bytes: Bytes::Memory(images.into()),
                offset: 0,
                stride: (height * width * channels) as u64,
                count,
            }],
            element: Element::U8,
            big_endian: false,
            channels_first: false,
            height,
            width,
            channels,
            range: super::Range::Byte,
        };
        let found = Found {
            source: Source::Memory,
            pictures: Box::new(pictures),
            labels,
            classes,
            skipped: Vec::new(),
            notes: Vec::new(),
        };
        let size = options.size.map(|size| (size.height, size.width));
        Survey::new(Path::new(name), found, options)?.load(size)
    }

    /// Images, held-out ones included.
    pub fn count(&self) -> usize {
        self.numbers.len()
    }

    /// Height and width in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.cache.form.height, self.cache.form.width)
    }

    /// 1 (grey), 3 (RGB) or 4 (RGBA).
    pub fn channels(&self) -> usize {
        self.cache.form.channels
    }

    /// Numbers of one image: height · width · channels.
    pub fn image_len(&self) -> usize {
        let (height, width) = self.size();
        height * width * self.channels()
    }

    /// Names of the classes, if there are labels.
    pub fn classes(&self) -> Option<&[String]> {
        self.classes.as_deref()
    }

    /// The class of every image, in `0..classes`, if there are labels.
    pub fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }

    /// BLAKE3 of the decoded, resized pixels and the labels in the set's order, 64 hexadecimal digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The images to train on: the first ones.
    pub fn train_indices(&self) -> Range<usize> {
        0..self.count() - self.heldout
    }

    /// The images that are held out: the last ones.
    pub fn heldout_indices(&self) -> Range<usize> {
        self.count() - self.heldout..self.count()
    }

    /// Whether training images are mirrored at random.
    pub fn flip(&self) -> bool {
        self.flip
    }

    /// What kind of data set it was.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Where it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Broken images that were left out.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// What a user should hear about how the data was understood, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether every image is in memory.
    pub fn in_memory(&self) -> bool {
        self.cache.cached() == self.count() || self.pictures.borrow(self.numbers[0], &self.cache.form).is_some()
    }

    /// Checks that one batch can be filled without an image twice.
    ///
    /// # Errors
    /// [`DataError::SmallerThanBatch`].
    pub fn check_batch(&self, batch: usize) -> Result<(), DataError> {
        let train = self.train_indices().len();
        if batch <= train {
            return Ok(());
        }
        Err(DataError::SmallerThanBatch {
            path: self.path.display().to_string(),
            count: self.count(),
            train,
            heldout: self.heldout,
            batch,
        })
    }

    /// Image `index` as bytes `[height, width, channels]`; a larger one's centre.
    ///
    /// # Errors
    /// [`DataError::Call`] for an index or a length that does not fit, [`DataError::Changed`] or the
    /// reader's error if the image is read again.
    pub fn image(&self, index: usize, out: &mut [u8]) -> Result<(), DataError> {
        self.put(index, Window::Centre, false, out, |byte| byte)
    }

    /// Image `index` as a network sees it, in `[-1, 1]`: `x/127.5 − 1`; a larger one's centre.
    ///
    /// # Errors
    /// As [`DataSet::image`].
    pub fn image_f32(&self, index: usize, out: &mut [f32]) -> Result<(), DataError> {
        self.put(index, Window::Centre, false, out, symmetric)
    }

    /// A window of image `index`, mirrored if asked, in `[-1, 1]`.
    pub(super) fn window_f32(
        &self,
        index: usize,
        window: Window,
        mirror: bool,
        out: &mut [f32],
    ) -> Result<(), DataError> {
        self.put(index, window, mirror, out, symmetric)
    }

    fn put<T>(
        &self,
        index: usize,
        window: Window,
        mirror: bool,
        out: &mut [T],
        value: impl Fn(u8) -> T,
    ) -> Result<(), DataError> {
        let wrong = |expected, found| Err(DataError::Call { operation: "reading an image", expected, found });
        let Some(&number) = self.numbers.get(index) else {
            return wrong(format!("an index below {}", self.count()), index.to_string());
        };
        if out.len() != self.image_len() {
            return wrong(format!("room for {} numbers", self.image_len()), out.len().to_string());
        }
        let (bytes, rows, columns) = self.cache.image(index, self.pictures.as_ref(), number)?;
        let ((height, width), channels) = (self.size(), self.channels());
        let top = window.offset(rows - height, true);
        let left = window.offset(columns - width, false);
        for (y, out) in out.chunks_exact_mut(width * channels).enumerate() {
            let start = ((top + y) * columns + left) * channels;
            let row = &bytes[start..start + width * channels];
            if mirror {
                for (out, pixel) in out.chunks_exact_mut(channels).zip(row.chunks_exact(channels).rev()) {
                    out.iter_mut().zip(pixel).for_each(|(out, &byte)| *out = value(byte));
                }
            } else {
                out.iter_mut().zip(row).for_each(|(out, &byte)| *out = value(byte));
            }
        }
        Ok(())
    }
}

/// The names that came with the set, or numbers.
fn class_names(path: &Path, labels: &[u32], known: Option<Vec<String>>) -> Result<Vec<String>, DataError> {
    let needed = labels.iter().max().map_or(0, |&most| most as usize + 1);
    match known {
        Some(names) if names.len() < needed => Err(DataError::format(
            path,
            format!("labels below {}, the number of class names", names.len()),
            format!("the label {}", needed - 1),
            "correct the labels, or set data.classes = false",
        )),
        Some(names) => Ok(names),
        None => Ok((0..needed).map(|class| class.to_string()).collect()),
    }
}

/// BLAKE3 over the hashes of the images, each with its label.
fn hash(cache: &Cache, labels: Option<&[u32]>) -> String {
    let mut hasher = blake3::Hasher::new();
    for size in [cache.form.height, cache.form.width, cache.form.channels, cache.hashes.len()] {
        hasher.update(&(size as u64).to_le_bytes());
    }
    for (index, image) in cache.hashes.iter().enumerate() {
        hasher.update(image.as_bytes());
        if let Some(label) = labels.and_then(|labels| labels.get(index)) {
            hasher.update(&label.to_le_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}
