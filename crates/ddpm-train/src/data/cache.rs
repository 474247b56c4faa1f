//! Decoded images in memory, as many as fit; the others are read again from where they came.

use std::borrow::Cow;

use super::DataError;
use super::pixels::{Form, Pixels};
use super::source::Pictures;

/// Reads one image, brings it into form, and hashes it.
pub(super) fn formed(pictures: &dyn Pictures, index: usize, form: &Form) -> Result<(Pixels, blake3::Hash), DataError> {
    let failed = |reason| DataError::Picture { path: pictures.name(index).into(), reason };
    let image = pictures.read(index)?.formed(form).map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(image.height as u64).to_le_bytes()).update(&(image.width as u64).to_le_bytes());
    hasher.update(&image.data);
    Ok((image, hasher.finalize()))
}

/// Decoded images: the first ones in memory, the hashes of all.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) form: Form,
    /// Pixels of the first images, one after the other.
    bytes: Vec<u8>,
    /// Where each cached image begins in `bytes`, with its height and width.
    places: Vec<(usize, usize, usize)>,
    budget: u64,
    /// Nothing more is kept: the budget is spent, or the source itself lies in memory in this form.
    full: bool,
    pub(super) hashes: Vec<blake3::Hash>,
}

impl Cache {
    /// An empty one, for the images `kept` of `pictures`.
    pub(super) fn new(form: Form, budget: u64, pictures: &dyn Pictures, kept: &[usize]) -> Self {
        let as_it_is = kept.first().is_some_and(|&first| pictures.borrow(first, &form).is_some());
        let expected = kept.len().saturating_mul(form.height * form.width * form.channels);
        let reserve = if as_it_is { 0 } else { usize::try_from(budget).unwrap_or(usize::MAX).min(expected) };
        Self {
            form,
            bytes: Vec::with_capacity(reserve),
            places: Vec::new(),
            budget,
            full: as_it_is,
            hashes: Vec::with_capacity(kept.len()),
        }
    }

    /// Adds the next image.
    pub(super) fn push(&mut self, image: &Pixels, hash: blake3::Hash) {
        self.hashes.push(hash);
        self.full |= (self.bytes.len() + image.data.len()) as u64 > self.budget;
        if !self.full {
            self.places.push((self.bytes.len(), image.height, image.width));
            self.bytes.extend_from_slice(&image.data);
        }
    }

    /// Images that are in memory.
    pub(super) fn cached(&self) -> usize {
        self.places.len()
    }

    /// Pixels, height and width of image `index`, which is number `number` of `pictures`.
    ///
    /// # Errors
    /// [`DataError::Changed`] if it is read again and differs, or the error of reading.
    pub(super) fn image<'a>(
        &'a self,
        index: usize,
        pictures: &'a dyn Pictures,
        number: usize,
    ) -> Result<(Cow<'a, [u8]>, usize, usize), DataError> {
        if let Some(&(start, height, width)) = self.places.get(index) {
            let end = start + height * width * self.form.channels;
            return Ok((Cow::Borrowed(&self.bytes[start..end]), height, width));
        }
        if let Some(bytes) = pictures.borrow(number, &self.form) {
            return Ok((Cow::Borrowed(bytes), self.form.height, self.form.width));
        }
        let (image, hash) = formed(pictures, number, &self.form)?;
        if self.hashes.get(index) != Some(&hash) {
            return Err(DataError::Changed { name: pictures.name(number) });
        }
        Ok((Cow::Owned(image.data), image.height, image.width))
    }
}
