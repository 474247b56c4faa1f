use std::sync::Arc;

use ddpm_kernels::Backend;
use ddpm_tensor::{Tensor, View};

use super::{Residual, ResidualCache, ResidualInput, Temb, Upsample};
use crate::layers::{Attention, AttentionCache, FeatureMap, MapGrad, SharedMap};
use crate::{Mode, Parameters, Result};

/// A level on the way up: residual blocks, each reading a skip connection beside what came before, and followed by
/// attention where the level attends; then the doubling, except at the image's own resolution.
#[derive(Debug, Clone, PartialEq)]
pub struct Up {
    /// Residual blocks and what follows each.
    pub layers: Vec<(Residual, Option<Attention>)>,
    /// The doubling.
    pub upsample: Option<Upsample>,
}

/// What [`Up::backward`] needs of the forward pass.
#[derive(Debug)]
pub struct UpCache<B: Backend> {
    layers: Vec<(ResidualCache<B>, Option<AttentionCache<B>>)>,
    upsampled: Option<FeatureMap<B>>,
}

impl Up {
    /// `[N, H, W, C_in]` → `[N, 2H, 2W, C_out]` (at the image's resolution `[N, H, W, C_out]`); pops the skips.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        x: FeatureMap<B>,
        temb: View<'_, B>,
        skips: &mut Vec<SharedMap<B>>,
        mode: Mode,
    ) -> Result<(FeatureMap<B>, Option<UpCache<B>>)> {
        let mut h = x;
        let mut layers = Vec::with_capacity(if mode.keeps() { self.layers.len() } else { 0 });
        for (i, (residual, attention)) in self.layers.iter().enumerate() {
            // The convolution after the doubling normalises nothing.
            let last = i + 1 == self.layers.len() && self.upsample.is_some();
            let input = ResidualInput { first: Arc::new(h), skip: skips.pop() };
            let statistics = attention.is_some() || !last;
            let (mut y, cache) = residual.forward(backend, parameters, input, temb, statistics, mode)?;
            let mut attention_cache = None;
            if let Some(attention) = attention {
                (y, attention_cache) = attention.forward(backend, parameters, Arc::new(y), !last, mode)?;
            }
            layers.extend(cache.map(|cache| (cache, attention_cache)));
            h = y;
        }
        let mut upsampled = None;
        if let Some(upsample) = &self.upsample {
            let y = upsample.forward(backend, parameters, &h)?;
            upsampled = Some(std::mem::replace(&mut h, y));
        }
        Ok((h, mode.keeps().then_some(UpCache { layers, upsampled })))
    }

    /// The gradient of x; those of the skips are pushed, the last read first.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn backward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        cache: UpCache<B>,
        dy: impl Into<MapGrad<B>>,
        skip_grads: &mut Vec<Tensor<B>>,
        temb: &mut Temb<'_, B>,
        mut grads: Option<&mut Parameters<B>>,
    ) -> Result<MapGrad<B>> {
        let mut d = dy.into();
        if let Some((layer, x)) = self.upsample.as_ref().zip(cache.upsampled) {
            d = layer.backward(backend, parameters, &x, d, grads.as_deref_mut())?;
        }
        for ((residual, attention), (cache, attention_cache)) in self.layers.iter().zip(cache.layers).rev() {
            if let Some((layer, cache)) = attention.as_ref().zip(attention_cache) {
                d = layer.backward(backend, parameters, cache, d, grads.as_deref_mut())?;
            }
            let skip;
            (d, skip) = residual.backward(backend, parameters, cache, d, None, temb, grads.as_deref_mut())?;
            skip_grads.extend(skip);
        }
        Ok(d)
    }
}
