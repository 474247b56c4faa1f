//! Losses on what the network predicts, forward and backward in one pass.

use ddpm_tensor::{Device, Tensor};

pub(crate) mod cpu;

/// A loss of one element, of the difference `d = output − target`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LossKind {
    /// Mean squared error, `d²` (Ho et al. 2020, eq. 14).
    L2,
    /// Mean absolute error, `|d|`; its gradient at 0 is 0.
    L1,
    /// Huber's: `d²/2` up to `|d| = delta`, then `delta·(|d| − delta/2)`.
    Huber {
        /// Where the square becomes a line; above 0.
        delta: f32,
    },
}

/// What [`Backend::loss`](crate::Backend::loss) returns.
#[derive(Debug)]
pub struct LossGrad<B: Device> {
    /// Mean of the loss over the elements of each image, not weighted.
    pub loss: Vec<f64>,
    /// Mean of `d²` over the elements of each image, not weighted.
    pub mse: Vec<f64>,
    /// Gradient with respect to the output, its shape.
    pub d_output: Tensor<B>,
}
