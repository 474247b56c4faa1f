//! How good the averaged weights' images are while training.

use std::sync::atomic::AtomicBool;

use ddpm_kernels::Backend;

use super::preview::Ended;
use super::{Scores, Trainer};
use crate::checkpoint::Weights;
use crate::error::Error;
use crate::eval::scores::{IS_SPLITS, Rows, inception_score};
use crate::eval::{EvalError, FeatureNetwork, Moments, Statistics, frechet_distance};

/// Images that are in memory at once.
const AT_ONCE: usize = 64;

/// The feature network, and the statistics of the training images.
#[derive(Debug)]
pub(super) struct Scorer<B: Backend<Elem = f32>> {
    network: FeatureNetwork<B>,
    data: Statistics,
}

impl<B: Backend<Elem = f32>> Trainer<B> {
    /// Reads the feature network of the settings and looks at the training images.
    ///
    /// # Errors
    /// A network that is not there or does not take such images; those of data and device.
    pub(super) fn scorer(&self) -> Result<Scorer<B>, Error> {
        let path = &self.settings.eval.features;
        let network = if path.is_empty() {
            FeatureNetwork::digits(&self.backend)?
        } else {
            let weights = std::fs::read(path).map_err(|error| EvalError::Weights(format!("{path}: {error}")))?;
            FeatureNetwork::inception(&self.backend, &weights)?
        };
        let data = self.data();
        let mut moments = Moments::new(network.widths().pooled);
        let part = data.train_indices();
        for first in part.clone().step_by(AT_ONCE) {
            let range = first..(first + AT_ONCE).min(part.end);
            let mut levels = vec![0; range.len() * data.image_len()];
            for (index, out) in range.zip(levels.chunks_exact_mut(data.image_len())) {
                data.image(index, out)?;
            }
            moments.push(&network.features(&self.backend, &levels, self.image())?.pooled)?;
        }
        Ok(Scorer { network, data: moments.finish()? })
    }

    /// Draws images of the averaged weights and measures them; nothing if `stop` is set meanwhile.
    ///
    /// # Errors
    /// Those of the device.
    pub(super) fn scores(&self, scorer: &Scorer<B>, stop: &AtomicBool) -> Result<Option<Scores>, Error> {
        let (count, widths) = (self.settings.eval.count, scorer.network.widths());
        let (mut moments, mut logits) = (Moments::new(widths.pooled), Vec::new());
        for first in (0..count).step_by(AT_ONCE) {
            let images = match self.sample(Weights::Ema, first..(first + AT_ONCE).min(count), stop) {
                Ok(images) => images,
                Err(Ended::Failed(error)) => return Err(error),
                Err(Ended::Stopped) => return Ok(None),
            };
            let levels: Vec<u8> = images.iter().map(|&x| ((x + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8).collect();
            let seen = scorer.network.features(&self.backend, &levels, self.image())?;
            moments.push(&seen.pooled)?;
            logits.extend(seen.logits);
        }
        let fid = frechet_distance(&moments.finish()?, &scorer.data)?;
        let splits = IS_SPLITS.min(count);
        Ok(Some(Scores { fid, is: inception_score(Rows::new(&logits, widths.logits)?, splits)?.mean }))
    }
}
