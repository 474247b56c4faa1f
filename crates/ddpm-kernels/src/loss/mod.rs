//! Losses on what the network predicts, forward and backward in one pass.

use ddpm_tensor::{Device, Shape, Tensor};

use crate::KernelError;
use crate::error::expect;

pub(crate) mod cpu;
pub(crate) mod cuda;

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

/// Fails unless target and weights fit the output, and the kind is one.
fn check(kind: LossKind, output: Shape, target: Shape, weights: &[f32]) -> Result<(), KernelError> {
    expect("loss", "the target", output, target)?;
    let n = output.nhwc()[0];
    if weights.len() != n {
        let what = format!("{} weights came for {n} images", weights.len());
        return Err(KernelError::Setting { operation: "loss", what });
    }
    if let LossKind::Huber { delta } = kind
        && (delta.is_nan() || delta <= 0.0)
    {
        let what = format!("the Huber loss becomes linear at a delta above 0, not at {delta}");
        return Err(KernelError::Setting { operation: "loss", what });
    }
    Ok(())
}
