//! The layers of a U-Net, each plain data (sizes and [`ParamId`](crate::layout::ParamId)s) with a written backward pass.
//!
//! A layer takes its parameters' numbers as an argument, so one description serves weights, EMA and every device.
//! `backward` adds to the gradients it is given and returns the gradient of its input; without gradients to add to, it
//! returns the input's alone.

mod attention;
mod class_embedding;
mod conv;
mod dense;
mod group_norm;
mod time_embedding;

pub use attention::{Attention, AttentionCache};
pub use class_embedding::{ClassCache, ClassEmbedding, Classes};
pub use conv::Conv;
pub use dense::Dense;
pub use group_norm::{GroupNorm, NormGrad};
pub use time_embedding::{Fourier, Sinusoid, TimeCache, TimeEmbedding, Waves};

use std::sync::Arc;

use ddpm_kernels::{Backend, Output};
use ddpm_tensor::{Tensor, View};

use crate::Result;

/// A tensor `[N, H, W, C]` between layers, with the statistics that its producer left for the norms that read it.
#[derive(Debug)]
pub struct FeatureMap<B: Backend> {
    /// `[N, H, W, C]`.
    pub x: Tensor<B>,
    /// `[N, C, 2]`: mean and M2 of each image and channel, if they were asked for.
    pub statistics: Option<Tensor<B>>,
}

/// A feature map that several layers read: the next one, and a later one along a skip connection.
pub type SharedMap<B> = Arc<FeatureMap<B>>;

impl<B: Backend> From<Output<B>> for FeatureMap<B> {
    fn from(output: Output<B>) -> Self {
        Self { x: output.y, statistics: output.statistics }
    }
}

impl<B: Backend> From<Tensor<B>> for FeatureMap<B> {
    fn from(x: Tensor<B>) -> Self {
        Self { x, statistics: None }
    }
}

/// `sum += term`, where the first term becomes the sum.
pub(crate) fn accumulate<B: Backend>(backend: &B, sum: &mut Option<Tensor<B>>, term: Tensor<B>) -> Result<()> {
    *sum = Some(match sum.take() {
        Some(sum) => plus(backend, sum, term.view())?,
        None => term,
    });
    Ok(())
}

/// `sum + term`, in the memory of the sum.
pub(crate) fn plus<B: Backend>(backend: &B, mut sum: Tensor<B>, term: View<'_, B>) -> Result<Tensor<B>> {
    backend.add_scaled(&mut sum, 1.0, term)?;
    Ok(sum)
}

/// `dy·scale`: the gradient before the scale of an epilogue.
pub(crate) fn scaled<B: Backend>(backend: &B, dy: Tensor<B>, scale: f32) -> Result<Tensor<B>> {
    if scale == 1.0 { Ok(dy) } else { Ok(backend.affine(dy.view(), f64::from(scale), 0.0)?) }
}
