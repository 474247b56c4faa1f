//! What a data set holds before it is decoded, and its decoding.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::cache::{Cache, formed};
use super::pixels::Form;
use super::source::{Colour, Found, Skipped, Source, find};
use super::{DataError, DataOptions, DataSet, OnError};

/// Images that are decoded at once while a set is loaded, to be shared among threads.
const CHUNK: usize = 64;

/// What a data set holds, known from headers alone: from it a program can choose a size.
#[derive(Debug)]
pub struct Survey {
    pub(super) path: PathBuf,
    pub(super) found: Found,
    pub(super) options: DataOptions,
    /// Indices of images that can be used.
    pub(super) kept: Vec<usize>,
    pub(super) skipped: Vec<Skipped>,
    /// Height and width of each kept image.
    sizes: Vec<(usize, usize)>,
    channels: usize,
}

/// Looks through a data set without decoding it (but for pictures whose colour only pixels tell).
///
/// # Errors
/// Any [`DataError`] but those of pixels.
pub fn survey(path: &Path, options: &DataOptions) -> Result<Survey, DataError> {
    options.check()?;
    Survey::new(path, find(path, options)?, options)
}

/// Opens a data set: [`survey`], then [`Survey::load`] with the size of `options`.
///
/// # Errors
/// Any [`DataError`]; [`DataError::Mixed`] if the images differ in size and none was asked for.
///
/// ```no_run
/// use ddpm_train::data::{open, DataOptions, Size};
/// let options = DataOptions { size: Some(Size::square(64)), flip: true, ..DataOptions::default() };
/// let photos = open("photos".as_ref(), &options)?;
/// println!("{} images, {} channels", photos.count(), photos.channels());
/// # Ok::<(), ddpm_train::data::DataError>(())
/// ```
pub fn open(path: &Path, options: &DataOptions) -> Result<DataSet, DataError> {
    survey(path, options)?.load(options.size.map(|size| (size.height, size.width)))
}

impl Survey {
    pub(super) fn new(path: &Path, found: Found, options: &DataOptions) -> Result<Self, DataError> {
        let count = found.pictures.len();
        check_labels(path, &found, count, options.classes)?;
        let known: BTreeMap<usize, Skipped> = found.skipped.iter().cloned().collect();
        let headers: Vec<_> = (0..count)
            .into_par_iter()
            .map(|index| (!known.contains_key(&index)).then(|| found.pictures.header(index)))
            .collect();
        let mut survey = Self {
            path: path.to_path_buf(),
            found,
            options: options.clone(),
            kept: Vec::with_capacity(count),
            skipped: Vec::new(),
            sizes: Vec::with_capacity(count),
            channels: 0,
        };
        let mut unknown = Vec::new();
        let mut colour = false;
        for (index, header) in headers.into_iter().enumerate() {
            match header {
                None => survey.skipped.extend(known.get(&index).cloned()),
                Some(Err(error)) if options.on_error == OnError::Stop => return Err(error),
                Some(Err(error)) => survey.skip(index, &error),
                Some(Ok(header)) => {
                    survey.kept.push(index);
                    survey.sizes.push((header.height, header.width));
                    colour |= header.colour == Colour::Rgb;
                    if header.colour == Colour::Unknown {
                        unknown.push(index);
                    }
                }
            }
        }
        survey.check_not_empty()?;
        survey.channels = match options.channels {
            Some(channels) => channels,
            None if colour => 3,
            None => {
                let pictures = &survey.found.pictures;
                // A picture that cannot be decoded has no colour; it is named when all are decoded.
                let is_colour = |&&index: &&usize| pictures.read(index).is_ok_and(|pixels| !pixels.is_grey());
                if unknown.par_iter().find_any(is_colour).is_some() { 3 } else { 1 }
            }
        };
        Ok(survey)
    }

    fn skip(&mut self, index: usize, error: &DataError) {
        self.skipped.push(Skipped { name: self.found.pictures.name(index), reason: error.to_string() });
    }

    fn check_not_empty(&self) -> Result<(), DataError> {
        let Some(first) = self.skipped.first().filter(|_| self.kept.is_empty()) else { return Ok(()) };
        let found = format!("all {} are broken, among them {}: {}", self.skipped.len(), first.name, first.reason);
        Err(DataError::Empty { path: self.path.clone(), found })
    }

    /// Images that can be used, as far as headers tell.
    pub fn count(&self) -> usize {
        self.kept.len()
    }

    /// What kind of data set it is.
    pub fn source(&self) -> Source {
        self.found.source
    }

    /// Channels that the images will have: 1, 3 or 4.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Height and width, if all images have the same.
    pub fn common_size(&self) -> Option<(usize, usize)> {
        let first = *self.sizes.first()?;
        self.sizes.iter().all(|&size| size == first).then_some(first)
    }

    /// The least height and the least width of any image: at this size none is enlarged.
    pub fn least_size(&self) -> (usize, usize) {
        let least = |side: fn(&(usize, usize)) -> usize| self.sizes.iter().map(side).min().unwrap_or(0);
        (least(|size| size.0), least(|size| size.1))
    }

    /// Decodes every image once, brings it to `size` (height, width), and keeps what fits.
    ///
    /// # Errors
    /// [`DataError::Mixed`] without a size if images differ in theirs; the error of the first
    /// broken image, unless those are skipped; [`DataError::Empty`] if none is left.
    pub fn load(mut self, size: Option<(usize, usize)>) -> Result<DataSet, DataError> {
        let Some((height, width)) = size.or_else(|| self.common_size()) else { return Err(self.mixed()) };
        let form =
            Form { height, width, channels: self.channels, crop: self.options.crop, filter: self.options.resize };
        let mut cache = Cache::new(form, self.options.budget(), self.found.pictures.as_ref(), &self.kept);
        let candidates = std::mem::take(&mut self.kept);
        for chunk in candidates.chunks(CHUNK) {
            let images: Vec<_> =
                chunk.par_iter().map(|&index| formed(self.found.pictures.as_ref(), index, &form)).collect();
            for (&index, image) in chunk.iter().zip(images) {
                match image {
                    Ok((image, hash)) => {
                        self.kept.push(index);
                        cache.push(&image, hash);
                    }
                    Err(error) if self.options.on_error == OnError::Stop => return Err(error),
                    Err(error) => self.skip(index, &error),
                }
            }
        }
        self.check_not_empty()?;
        DataSet::new(self, cache)
    }

    fn mixed(self) -> DataError {
        let first = self.sizes[0];
        let other = self.sizes.iter().position(|&size| size != first).unwrap_or(0);
        DataError::Mixed {
            first: self.found.pictures.name(self.kept[0]),
            first_size: first,
            other: self.found.pictures.name(self.kept[other]),
            other_size: self.sizes[other],
            path: self.path,
        }
    }
}

/// Labels must be there if they are wanted, and as many as images.
fn check_labels(path: &Path, found: &Found, images: usize, wanted: bool) -> Result<(), DataError> {
    match &found.labels {
        None if wanted => Err(DataError::format(
            path,
            "labels (data.classes = true)",
            format!("{} without any", found.source),
            "add them (an array `labels`, or the labels file beside the images), or set data.classes = false",
        )),
        Some(labels) if labels.len() != images => Err(DataError::format(
            path,
            format!("one label for each of {images} images"),
            format!("{} labels", labels.len()),
            "correct them, or set data.classes = false",
        )),
        _ => Ok(()),
    }
}
