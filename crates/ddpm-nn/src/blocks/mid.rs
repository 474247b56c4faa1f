use std::sync::Arc;

use ddpm_kernels::Backend;
use ddpm_tensor::{Tensor, View};

use super::{Residual, ResidualCache, ResidualInput, Temb};
use crate::layers::{Attention, AttentionCache, FeatureMap, MapGrad, SharedMap};
use crate::{Mode, Parameters, Result};

/// The middle of the network: residual block, attention (if any), residual block.
#[derive(Debug, Clone, PartialEq)]
pub struct Mid {
    /// Before the attention.
    pub first: Residual,
    /// Over all pixels of the lowest resolution.
    pub attention: Option<Attention>,
    /// After the attention.
    pub second: Residual,
}

/// What [`Mid::backward`] needs of the forward pass.
#[derive(Debug)]
pub struct MidCache<B: Backend> {
    first: ResidualCache<B>,
    attention: Option<AttentionCache<B>>,
    second: ResidualCache<B>,
}

impl Mid {
    /// `[N, H, W, C]` → the same shape.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        x: SharedMap<B>,
        temb: View<'_, B>,
        mode: Mode,
    ) -> Result<(FeatureMap<B>, Option<MidCache<B>>)> {
        let input = ResidualInput { first: x, skip: None };
        let (mut h, first) = self.first.forward(backend, parameters, input, temb, true, mode)?;
        let mut attention_cache = None;
        if let Some(attention) = &self.attention {
            (h, attention_cache) = attention.forward(backend, parameters, Arc::new(h), true, mode)?;
        }
        let input = ResidualInput { first: Arc::new(h), skip: None };
        let (y, second) = self.second.forward(backend, parameters, input, temb, true, mode)?;
        let cache = first.zip(second).map(|(first, second)| MidCache { first, attention: attention_cache, second });
        Ok((y, cache))
    }

    /// The gradient of x, to which `add` is added.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn backward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        cache: MidCache<B>,
        dy: impl Into<MapGrad<B>>,
        add: Option<Tensor<B>>,
        temb: &mut Temb<'_, B>,
        mut grads: Option<&mut Parameters<B>>,
    ) -> Result<MapGrad<B>> {
        let MidCache { first, attention, second } = cache;
        let (mut d, _) = self.second.backward(backend, parameters, second, dy, None, temb, grads.as_deref_mut())?;
        if let Some((layer, cache)) = self.attention.as_ref().zip(attention) {
            d = layer.backward(backend, parameters, cache, d, grads.as_deref_mut())?;
        }
        Ok(self.first.backward(backend, parameters, first, d, add, temb, grads)?.0)
    }
}
