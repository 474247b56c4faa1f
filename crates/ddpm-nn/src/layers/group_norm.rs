use std::ops::Range;

use ddpm_kernels::{Backend, Norm, NormParameters, Operand, Pulled};
use ddpm_tensor::{Tensor, View};

use super::FeatureMap;
use crate::layout::{Init, ParamId, Role, Scope};
use crate::{Parameters, Result};

/// Group normalisation `γ·(x − mean)·rstd + β` (Wu and He 2018). It is never computed alone: it makes the [`Norm`] of an
/// [`Operand`], and finishes the gradient of one.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupNorm {
    gamma: ParamId,
    beta: ParamId,
    groups: usize,
    eps: f64,
}

/// What [`GroupNorm::backward`] returns.
#[derive(Debug)]
pub struct NormGrad<B: Backend> {
    /// Gradient of the operand's first part.
    pub first: Tensor<B>,
    /// Gradient of its second, if it is a concatenation.
    pub second: Option<Tensor<B>>,
    /// Gradient of the operand's scale and shift `[N, 2C]`, if it has them and parameters' gradients were wanted.
    pub scale_shift: Option<Tensor<B>>,
}

impl GroupNorm {
    /// Adds `weight [C]` (γ) and `bias [C]` (β) at a place of a layout. `groups` divides `channels`; `eps` is added to
    /// the variance.
    pub fn new(mut at: Scope<'_>, channels: usize, groups: usize, eps: f64) -> Self {
        let gamma = at.add("weight", [channels], Role::Gamma, Init::Constant(1.0));
        let beta = at.add("bias", [channels], Role::Beta, Init::Constant(0.0));
        Self { gamma, beta, groups, eps }
    }

    /// Mean and 1/√(variance + eps) of each image and group, `[N, groups, 2]`, of one tensor or two concatenated, for a norm with
    /// these parameters and scales.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn statistics<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        first: &FeatureMap<B>,
        second: Option<&FeatureMap<B>>,
        scale_shift: Option<&Tensor<B>>,
    ) -> Result<Tensor<B>> {
        let [_, h, w, _] = first.x.shape().nhwc();
        let missing = |part: &FeatureMap<B>| match part.statistics {
            Some(_) => Ok(None),
            None => backend.channel_statistics(part.x.view()).map(Some),
        };
        let made = [missing(first)?, second.map_or(Ok(None), missing)?];
        let parts = [Some(first), second];
        let of = |i: usize| {
            let left = parts[i].and_then(|p| p.statistics.as_ref());
            left.or(made[i].as_ref()).map(Tensor::view)
        };
        let (gamma, beta) = (parameters.view(self.gamma)?, parameters.view(self.beta)?);
        let norm = NormParameters { gamma, beta, scale_shift: scale_shift.map(Tensor::view) };
        Ok(backend.norm_statistics_for([of(0), of(1)], h * w, self.groups, self.eps, &norm)?)
    }

    /// The norm of an operand with these statistics.
    ///
    /// # Errors
    /// Only for parameters of another layout.
    pub fn norm<'a, B: Backend>(
        &self,
        parameters: &'a Parameters<B>,
        statistics: &'a Tensor<B>,
        scale_shift: Option<&'a Tensor<B>>,
    ) -> Result<Norm<'a, B>> {
        Ok(Norm {
            groups: self.groups,
            statistics: statistics.view(),
            gamma: parameters.view(self.gamma)?,
            beta: parameters.view(self.beta)?,
            scale_shift: scale_shift.map(Tensor::view),
        })
    }

    /// Where γ and β lie in a buffer.
    pub(crate) fn ranges<B: Backend>(&self, parameters: &Parameters<B>) -> [Range<usize>; 2] {
        [parameters.range(self.gamma), parameters.range(self.beta)]
    }

    /// Finishes the gradient of an operand that this norm normalises: adds the gradients of γ and β, returns those of
    /// the parts, to which `add` is added.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn backward<B: Backend>(
        &self,
        backend: &B,
        x: &Operand<'_, B>,
        pulled: Pulled<B>,
        add: [Option<View<'_, B>>; 2],
        grads: Option<&mut Parameters<B>>,
    ) -> Result<NormGrad<B>> {
        let mut scale_shift = None;
        if let (Some(grads), Some(sums)) = (grads, &pulled.sums) {
            let (d_gamma, d_beta) = (grads.range(self.gamma), grads.range(self.beta));
            scale_shift = backend.norm_param_grad(x, sums.view(), grads.buffer_mut(), d_gamma, d_beta)?;
        }
        let (first, second) = backend.operand_grad(x, pulled, add)?;
        Ok(NormGrad { first, second, scale_shift })
    }
}
