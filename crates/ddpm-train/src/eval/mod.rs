//! How good a model is: likelihoods, and distances between its images and data.
//!
//! | file | idea |
//! |---|---|
//! | `nll` | the variational bound in bits per dimension, term by term, and the rate-distortion curve |
//! | `ode` | the likelihood of the probability-flow ODE |
//! | `features` | networks that turn images into features: the program's classifier of digits, Inception-v3 |
//! | `statistics` | mean and covariance of features that stream by, and the Fréchet distance |
//! | `scores` | kernel distance, Inception score, precision, recall, density and coverage |
//! | `reference` | files of statistics, as other programs write them |

mod error;
pub mod features;
mod nll;
pub mod ode;
mod reference;
pub mod scores;
mod statistics;

pub use error::EvalError;
pub use features::{FeatureNetwork, Features};
pub use nll::{Likelihood, Point, Terms, terms};
pub use reference::{Reference, ReferenceFile, write as write_reference};
pub use statistics::{Moments, Statistics, frechet_distance};

use ddpm_kernels::Backend;
use ddpm_nn::{Mode, Parameters, UNet};
use ddpm_tensor::Tensor;

use crate::diffusion::{Prediction, Schedule, Variance};
use crate::error::Error;

/// A network on its device, and what its output means.
#[derive(Debug)]
pub struct Denoiser<'a, B: Backend<Elem = f32>> {
    /// The device.
    pub backend: &'a B,
    /// The network.
    pub unet: &'a UNet,
    /// Its parameters.
    pub parameters: &'a Parameters<B>,
    /// The noise schedule.
    pub schedule: &'a Schedule,
    /// What the network predicts.
    pub prediction: Prediction,
    /// Variance of a reverse step; a learned one means that the network says it in as many channels more.
    pub variance: Variance,
    /// v of [`Variance::Blend`].
    pub variance_blend: f64,
    /// Where x̂_0 is clipped, if it is.
    pub clip: Option<f64>,
}

impl<B: Backend<Elem = f32>> Denoiser<'_, B> {
    /// The network's output for x_t, all images at one time step.
    fn output(&self, x_t: &Tensor<B>, t: f64, classes: Option<&[usize]>) -> Result<Tensor<B>, Error> {
        let [n, ..] = x_t.shape().nhwc();
        let times = vec![t as f32; n];
        Ok(self.unet.forward(self.backend, self.parameters, x_t.view(), &times, classes, Mode::Infer)?.0)
    }
}
