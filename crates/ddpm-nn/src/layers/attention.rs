use ddpm_kernels::{Backend, Epilogue, Operand};
use ddpm_tensor::Tensor;

use super::{Dense, FeatureMap, GroupNorm, SharedMap, plus, scaled};
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
        let x_statistics = norm.map(|n| n.statistics(backend, &x, None)).transpose()?;
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
        dy: Tensor<B>,
        mut grads: Option<&mut Parameters<B>>,
    ) -> Result<Tensor<B>> {
        let AttentionCache { x, statistics, o } = cache;
        let dy = scaled(backend, dy, self.scale)?;
        let plain = Operand::plain(o.view());
        let d_o = self.to_out.backward(backend, parameters, &plain, dy.view(), grads.as_deref_mut())?.g;
        drop(o);
        let operand = self.operand(parameters, &x, statistics.as_ref())?;
        let [q, k, v] = self.projections(backend, parameters, &operand)?;
        let [dq, dk, dv] =
            backend.attention_grad(q.view(), k.view(), v.view(), d_o.view(), self.heads, self.head_scale)?;
        drop((q, k, v, d_o));
        let mut pulled = self.to_q.backward(backend, parameters, &operand, dq.view(), grads.as_deref_mut())?;
        // One vector added to all keys adds one number to a whole row of scores, which the softmax does not see: the
        // gradient of the key's bias is zero. What rounding leaves of it Adam would take for a direction.
        if let Some(grads) = grads.as_deref_mut() {
            self.to_k.weight_grad(backend, &operand, dk.view(), grads)?;
        }
        let from_k = self.to_k.input_grad(backend, parameters, &operand, dk.view())?;
        let from_v = self.to_v.backward(backend, parameters, &operand, dv.view(), grads.as_deref_mut())?;
        drop((dk, dv));
        for more in [from_k, from_v] {
            backend.add_scaled(&mut pulled.g, 1.0, more.g.view())?;
            if let (Some(sums), Some(more)) = (&mut pulled.sums, more.sums) {
                backend.add_scaled(sums, 1.0, more.view())?;
            }
        }
        match &self.group_norm {
            Some(norm) => Ok(norm.backward(backend, &operand, pulled, [Some(dy.view()), None], grads)?.first),
            None => plus(backend, pulled.g, dy.view()),
        }
    }
}
