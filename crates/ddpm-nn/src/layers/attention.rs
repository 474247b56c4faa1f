use ddpm_kernels::conv::{Along, ConvGrad, Geometry, ParameterGrads};
use ddpm_kernels::{Backend, Epilogue, Operand};
use ddpm_tensor::Tensor;

use super::{Dense, FeatureMap, GroupNorm, MapGrad, SharedMap};
use crate::layout::{Init, Scope};
use crate::{Mode, Parameters, Result};

/// Self-attention over the pixels of an image: `y = (out(softmax(q·kᵀ/√d)·v) + x)·scale`, q, k and v dense layers of the
/// normalised x, d the channels of a head (Ho et al. 2020, appendix B; several heads as in Vaswani et al. 2017).
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    group_norm: Option<GroupNorm>,
    to_q: Dense,
    to_k: Dense,
    to_v: Dense,
    to_out: Dense,
    heads: usize,
    head_scale: f32,
    scale: f32,
}

/// What [`Attention::backward`] needs of the forward pass. It makes q, k and v again: three cheap products, a quarter of what a
/// network with attention would keep.
#[derive(Debug)]
pub struct AttentionCache<B: Backend> {
    x: SharedMap<B>,
    statistics: Option<Tensor<B>>,
    o: Tensor<B>,
}

impl Attention {
    /// Adds `group_norm`, `to_q`, `to_k`, `to_v` and `to_out.0` at a place of a layout.
    ///
    /// `groups` is `None` for an attention without normalisation; `heads` divides `channels`; the sum with x is
    /// multiplied by `scale`.
    pub fn new(mut at: Scope<'_>, channels: usize, groups: Option<usize>, eps: f64, heads: usize, scale: f32) -> Self {
        let group_norm = groups.map(|groups| GroupNorm::new(at.at("group_norm"), channels, groups, eps));
        let mut dense = |name, init| Dense::new(at.at(name), channels, channels, init);
        Self {
            group_norm,
            to_q: dense("to_q", Init::PAPER),
            to_k: dense("to_k", Init::PAPER),
            to_v: dense("to_v", Init::PAPER),
            to_out: dense("to_out.0", Init::PAPER_ZERO),
            heads,
            head_scale: (1.0 / (channels as f64 / heads as f64).sqrt()) as f32,
            scale,
        }
    }

    /// What q, k and v are made of: x, normalised.
    fn operand<'a, B: Backend>(
        &self,
        parameters: &'a Parameters<B>,
        x: &'a FeatureMap<B>,
        statistics: Option<&'a Tensor<B>>,
    ) -> Result<Operand<'a, B>> {
        let operand = Operand::plain(x.x.view());
        match (&self.group_norm, statistics) {
            (Some(norm), Some(statistics)) => Ok(operand.norm(norm.norm(parameters, statistics, None)?)),
            _ => Ok(operand),
        }
    }

    fn projections<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        operand: &Operand<'_, B>,
    ) -> Result<[Tensor<B>; 3]> {
        let project = |dense: &Dense| -> Result<Tensor<B>> {
            Ok(dense.forward(backend, parameters, operand, Epilogue::default())?.y)
        };
        Ok([project(&self.to_q)?, project(&self.to_k)?, project(&self.to_v)?])
    }

    /// `[N, H, W, C]` → the same shape; `statistics`: whether a norm reads the result.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        x: SharedMap<B>,
        statistics: bool,
        mode: Mode,
    ) -> Result<(FeatureMap<B>, Option<AttentionCache<B>>)> {
        let norm = self.group_norm.as_ref();
        let x_statistics = norm.map(|n| n.statistics(backend, parameters, &x, None, None)).transpose()?;
        let operand = self.operand(parameters, &x, x_statistics.as_ref())?;
        let [q, k, v] = self.projections(backend, parameters, &operand)?;
        let o = backend.attention(q.view(), k.view(), v.view(), self.heads, self.head_scale)?;
        let epilogue = Epilogue { residual: Some(x.x.view()), scale: self.scale, statistics, ..Epilogue::default() };
        let y = self.to_out.forward(backend, parameters, &Operand::plain(o.view()), epilogue)?;
        let cache = mode.keeps().then(|| AttentionCache { x, statistics: x_statistics, o });
        Ok((y.into(), cache))
    }

    /// The gradient of x; `dy` is the gradient of the result.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn backward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        cache: AttentionCache<B>,
        dy: impl Into<MapGrad<B>>,
        mut grads: Option<&mut Parameters<B>>,
    ) -> Result<MapGrad<B>> {
        let AttentionCache { x, statistics, o } = cache;
        let dy = dy.into().scaled(backend, self.scale)?;
        let learns = grads.is_some();
        let plain = Operand::plain(o.view());
        let (seen, none) = (dy.seen(), Along::default());
        let d_o = self.to_out.backward_to_parts(backend, parameters, &plain, seen, none, grads.as_deref_mut())?;
        let d_o = d_o.first;
        drop(o);
        let operand = self.operand(parameters, &x, statistics.as_ref())?;
        let [q, k, v] = self.projections(backend, parameters, &operand)?;
        let [dq, dk, dv] =
            backend.attention_grad(q.view(), k.view(), v.view(), d_o.view(), self.heads, self.head_scale)?;
        drop((q, k, v, d_o));
        // One vector added to all keys adds one number to a whole row of scores, which the softmax does not see: the
        // gradient of the key's bias is zero. What rounding leaves of it Adam would take for a direction.
        let products = [
            self.to_q.seen_from(parameters, dq.view(), None)?,
            ConvGrad { db: None, ..self.to_k.seen_from(parameters, dk.view(), None)? },
            self.to_v.seen_from(parameters, dv.view(), None)?,
        ];
        let grads = grads.map(|grads| {
            let norm = self.group_norm.as_ref().map(|norm| norm.ranges(grads));
            ParameterGrads { buffer: grads.buffer_mut(), norm }
        });
        let along = Along { whole: Some(dy.d), first: None };
        Ok(backend.conv_backward(&products, Geometry::ONE, &operand, along, grads, learns)?.into())
    }
}
