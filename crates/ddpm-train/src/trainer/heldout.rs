//! The loss on held-out images: it answers "may I stop?".

use ddpm_kernels::Backend;
use ddpm_kernels::loss::LossKind;
use ddpm_nn::Mode;
use ddpm_tensor::Tensor;
use ddpm_tensor::random::{Address, Purpose};

use super::{Heldout, Trainer};
use crate::checkpoint::Weights;
use crate::error::Error;

/// Seed of the held-out ε: not the run's, so that runs can be compared.
const SEED: u64 = 0;
/// 1/φ: its multiples are spread evenly over the unit interval, however many of them one takes.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

impl<B: Backend<Elem = f32>> Trainer<B> {
    /// Held-out images whose loss is measured.
    pub fn heldout_count(&self) -> usize {
        self.data().heldout_indices().len().min(self.settings.preview.heldout)
    }

    /// The loss on the held-out images of the weights and of their average; nothing without held-out images.
    ///
    /// # Errors
    /// Those of data and device.
    pub fn heldout(&self) -> Result<Option<Heldout>, Error> {
        if self.heldout_count() == 0 {
            return Ok(None);
        }
        Ok(Some(Heldout { raw: self.heldout_loss(Weights::Raw)?, ema: self.heldout_loss(Weights::Ema)? }))
    }

    /// Mean squared error of what is predicted, over the held-out images, image i always with the same t and ε.
    ///
    /// The t are spread evenly over 0..T (multiples of the golden ratio), so that few images give a mean over all t.
    fn heldout_loss(&self, which: Weights) -> Result<f64, Error> {
        let [height, width, channels] = self.image();
        let len = height * width * channels;
        let (count, total) = (self.heldout_count(), self.schedule.time_steps());
        let at_once = self.settings.images_at_once().min(count);
        let mut images = vec![0.0; at_once * len];
        let mut labels = vec![0; at_once];
        let mut sum = 0.0;
        let parameters = self.parameters(which);
        for first in (0..count).step_by(at_once) {
            let n = at_once.min(count - first);
            let (images, labels) = (&mut images[..n * len], &mut labels[..n]);
            self.batches.loader().heldout(first, images, labels)?;
            let t: Vec<usize> = (first..first + n).map(|i| time_step(i, total)).collect();
            let address = Address::new(SEED, Purpose::Heldout).at_sample(first as u64);
            let backend = &self.backend;
            let x_0 = Tensor::from_slice(backend, [n, height, width, channels], images)?;
            let (x_t, target) = self.noised(&x_0, &t, address, None)?;
            let classes: Vec<usize> = labels.iter().map(|&label| label as usize).collect();
            let classes = self.conditional().then_some(classes.as_slice());
            let times: Vec<f32> = t.iter().map(|&t| t as f32).collect();
            let input = self.input(parameters, &x_t, &t, classes, false)?;
            let shown = input.as_ref().unwrap_or(&x_t);
            let (output, _) = self.unet.forward(backend, parameters, shown.view(), &times, classes, Mode::Infer)?;
            let (output, _) = self.criterion.parts(backend, output)?;
            let loss = backend.loss(LossKind::L2, output.view(), target.view(), &self.host.weights[..n], 1.0)?;
            // image after image: the same sum whatever is computed at once
            for mse in loss.mse {
                sum += mse;
            }
        }
        Ok(sum / count as f64)
    }
}

/// t of the i-th held-out image.
fn time_step(i: usize, total: usize) -> usize {
    let fraction = (0.5 + i as f64 * GOLDEN).fract();
    ((fraction * total as f64) as usize).min(total - 1)
}

#[cfg(test)]
mod tests {
    use super::time_step;

    #[test]
    fn time_steps_cover_the_schedule_evenly() {
        for count in [10, 64, 180, 500] {
            let mut tenths = [0_usize; 10];
            for i in 0..count {
                tenths[time_step(i, 1000) / 100] += 1;
            }
            let (least, most) = (tenths.iter().min(), tenths.iter().max());
            assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 3), "{count}: {tenths:?}");
        }
        assert_eq!(time_step(5, 1), 0);
    }
}
