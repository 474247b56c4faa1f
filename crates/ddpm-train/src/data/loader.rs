//! Batches: what a training step sees is a function of (seed, step, position) and of nothing else.

use std::sync::Arc;

use ddpm_tensor::random::{Address, Purpose};
use rayon::prelude::*;

use super::dataset::Window;
use super::permutation::Permutation;
use super::{DataError, DataSet};

/// Which image stands at a position of the endless training sequence, and how it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Index in the data set.
    pub index: usize,
    /// Which pass over the data this is, from 0.
    pub epoch: u64,
    /// Whether it is mirrored left to right.
    pub mirror: bool,
    /// Offsets of a random crop, as parts of 2^32 of the possible ones.
    crop: (u32, u32),
}

/// Gives the batch of any step: epochs without replacement, each in its own order.
///
/// Image `i` of the batch of step `s` is the one at position `s·B + i`; position `p` lies in epoch
/// `p / n` of the `n` training images. So the sequence is the same for every batch size, and a run
/// that is taken up again needs nothing but its step.
#[derive(Clone, Debug)]
pub struct Loader {
    data: Arc<DataSet>,
    seed: u64,
}

impl Loader {
    /// The batches of a data set, for a run's seed.
    pub fn new(data: Arc<DataSet>, seed: u64) -> Self {
        Self { data, seed }
    }

    /// The data set.
    pub fn data(&self) -> &Arc<DataSet> {
        &self.data
    }

    /// The draw at a position of the training sequence.
    pub fn draw(&self, position: u64) -> Draw {
        let count = self.data.train_indices().len().max(1);
        let epoch = position / count as u64;
        let index = Permutation::new(self.seed, epoch, count).at((position % count as u64) as usize);
        let address = Address::new(self.seed, Purpose::Augment).at_step(epoch).at_sample(index as u64);
        let [flip, top, left, _] = address.block(0);
        Draw { index, epoch, mirror: self.data.flip() && flip >> 31 == 1, crop: (top, left) }
    }

    /// The images of step `step` as `[batch, H, W, C]` in `[-1, 1]` (`x/127.5 − 1`), and their
    /// classes (0 without labels); `batch` is the length of `labels`.
    ///
    /// # Errors
    /// [`DataError::Call`] if `images` is not `batch` images long; the reader's error for an image
    /// that is not in memory and is gone or changed.
    pub fn batch(&self, step: u64, images: &mut [f32], labels: &mut [u32]) -> Result<(), DataError> {
        let (batch, image) = (labels.len(), self.data.image_len());
        if images.len() != batch * image {
            return Err(DataError::Call {
                operation: "Loader::batch",
                expected: format!("{batch} images of {image} numbers, as there are {batch} labels"),
                found: format!("room for {} numbers", images.len()),
            });
        }
        let first = step * batch as u64;
        let fill = |(i, (out, label)): (usize, (&mut [f32], &mut u32))| {
            let draw = self.draw(first + i as u64);
            *label = self.data.labels().map_or(0, |labels| labels[draw.index]);
            self.data.window_f32(draw.index, Window::At(draw.crop.0, draw.crop.1), draw.mirror, out)
        };
        if self.data.in_memory() {
            images.chunks_exact_mut(image).zip(labels).enumerate().try_for_each(fill)
        } else {
            // Pictures must be decoded again: worth sharing among threads, whose number changes nothing.
            images.par_chunks_exact_mut(image).zip(labels).enumerate().try_for_each(fill)
        }
    }

    /// Held-out images `first..first + labels.len()`, in the set's order, never mirrored, the centre
    /// of larger ones.
    ///
    /// # Errors
    /// [`DataError::Call`] if there are not so many or `images` is not as long; the reader's error.
    pub fn heldout(&self, first: usize, images: &mut [f32], labels: &mut [u32]) -> Result<(), DataError> {
        let (heldout, image) = (self.data.heldout_indices(), self.data.image_len());
        let fits = first.checked_add(labels.len()).is_some_and(|end| end <= heldout.len());
        if !fits || images.len() != labels.len() * image {
            return Err(DataError::Call {
                operation: "Loader::heldout",
                expected: format!("a part of {} held-out images of {image} numbers each", heldout.len()),
                found: format!("{} from {first} on, with room for {} numbers", labels.len(), images.len()),
            });
        }
        for (i, (out, label)) in images.chunks_exact_mut(image).zip(labels).enumerate() {
            let index = heldout.start + first + i;
            *label = self.data.labels().map_or(0, |labels| labels[index]);
            self.data.image_f32(index, out)?;
        }
        Ok(())
    }
}
