//! Where x̂_0 is cut.

use ddpm_kernels::{Backend, KernelError};
use ddpm_tensor::{Element, Tensor};

use crate::diffusion::DiffusionError;

/// The bound of x̂_0.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Bound {
    /// None.
    #[default]
    None,
    /// |x̂_0| ≤ this.
    Clip(f64),
    /// Another for each image.
    Dynamic(Threshold),
}

/// Dynamic thresholding (Saharia et al. 2022, section 2.3): with q the `ratio` quantile of an image's |x̂_0|, kept within
/// 1..=`max`, x̂_0 is cut to ±q and divided by q.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// 0 to 1.
    pub ratio: f64,
    /// The largest q, at least 1.
    pub max: f64,
}

impl Default for Threshold {
    /// diffusers' ratio, and no largest q.
    fn default() -> Self {
        Self { ratio: 0.995, max: f64::INFINITY }
    }
}

impl Threshold {
    pub(super) fn check(self) -> Result<(), DiffusionError> {
        if !(0.0..=1.0).contains(&self.ratio) {
            return Err(DiffusionError::Option { option: "thresholding", expected: "from 0 to 1", got: self.ratio });
        }
        if self.max.is_nan() || self.max < 1.0 {
            return Err(DiffusionError::Option {
                option: "the thresholding's maximum",
                expected: "1 or more",
                got: self.max,
            });
        }
        Ok(())
    }

    /// q of an image; the quantile lies between two neighbours in linear proportion.
    pub fn quantile(self, image: &[f64]) -> f64 {
        let mut sizes: Vec<f64> = image.iter().map(|x| x.abs()).collect();
        sizes.sort_by(f64::total_cmp);
        let place = self.ratio * (sizes.len().max(1) - 1) as f64;
        let at = |i: usize| sizes.get(i).or(sizes.last()).copied().unwrap_or(0.0);
        let (low, high) = (at(place as usize), at(place as usize + 1));
        // not `clamp`: what is no number becomes 1 here
        (low + (high - low) * place.fract()).max(1.0).min(self.max)
    }
}

impl Bound {
    /// The bound that is the same for all images; infinite where there is none.
    pub(super) fn clip(self) -> f64 {
        if let Self::Clip(clip) = self { clip } else { f64::INFINITY }
    }

    /// A number, bounded; a bound that depends on the image leaves it alone.
    pub fn of(self, x_0: f64) -> f64 {
        x_0.clamp(-self.clip(), self.clip())
    }
}

/// x̂_0 `[N, …]`, thresholded image by image. Quantiles are found on the host.
pub(super) fn threshold<B: Backend>(
    backend: &B,
    x_0: &Tensor<B>,
    threshold: Threshold,
) -> Result<Tensor<B>, KernelError> {
    let mut values = x_0.to_vec(backend)?;
    let images = x_0.shape().dims().first().copied().unwrap_or(1).max(1);
    for image in values.chunks_mut((x_0.shape().len() / images).max(1)) {
        let numbers: Vec<f64> = image.iter().map(|x| x.to_f64()).collect();
        let q = threshold.quantile(&numbers);
        for (x, number) in image.iter_mut().zip(numbers) {
            *x = B::Elem::of(number.clamp(-q, q) / q);
        }
    }
    Ok(Tensor::from_slice(backend, x_0.shape(), &values)?)
}
