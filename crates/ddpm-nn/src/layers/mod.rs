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

use ddpm_kernels::conv::OperandGrad;
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

/// The gradient of a tensor between layers, with what its maker knows of it.
#[derive(Debug)]
pub struct MapGrad<B: Backend> {
    /// `[N, H, W, C]`.
    pub d: Tensor<B>,
    /// `[N, C]`: its sums over pixels, the gradient of a bias before it, if they are known.
    pub sums: Option<Tensor<B>>,
}

impl<B: Backend> From<Tensor<B>> for MapGrad<B> {
    fn from(d: Tensor<B>) -> Self {
        Self { d, sums: None }
    }
}

impl<B: Backend> From<OperandGrad<B>> for MapGrad<B> {
    fn from(grad: OperandGrad<B>) -> Self {
        Self { d: grad.first, sums: grad.first_sums }
    }
}

impl<B: Backend> MapGrad<B> {
    /// The gradient before the scale of an epilogue.
    pub(crate) fn scaled(self, backend: &B, scale: f32) -> Result<Self> {
        if scale == 1.0 { Ok(self) } else { Ok(backend.affine(self.d.view(), f64::from(scale), 0.0)?.into()) }
    }

    /// The gradient, and its sums, as [`Conv::backward_to_parts`] takes them.
    pub(crate) fn seen(&self) -> (View<'_, B>, Option<View<'_, B>>) {
        (self.d.view(), self.sums.as_ref().map(Tensor::view))
    }
}

/// `sum + term`, in the memory of the sum.
pub(crate) fn plus<B: Backend>(backend: &B, mut sum: Tensor<B>, term: View<'_, B>) -> Result<Tensor<B>> {
    backend.add_scaled(&mut sum, 1.0, term)?;
    Ok(sum)
}
