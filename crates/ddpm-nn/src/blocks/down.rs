use std::sync::Arc;

use ddpm_kernels::Backend;
use ddpm_tensor::{Tensor, View};

use super::{Downsample, Residual, ResidualCache, ResidualInput, Temb};
use crate::layers::{Attention, AttentionCache, MapGrad, SharedMap};
use crate::{Mode, Parameters, Result};

/// A level on the way down: residual blocks, each followed by attention where the level attends, then the halving,
/// except at the last level. Every one of these outputs is kept as a skip connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Down {
    /// Residual blocks and what follows each.
    pub layers: Vec<(Residual, Option<Attention>)>,
    /// The halving.
    pub downsample: Option<Downsample>,
}

/// What [`Down::backward`] needs of the forward pass.
#[derive(Debug)]
pub struct DownCache<B: Backend> {
    layers: Vec<(ResidualCache<B>, Option<AttentionCache<B>>)>,
    downsampled: Option<SharedMap<B>>,
}

impl Down {
    /// `[N, H, W, C_in]` → `[N, H/2, W/2, C_out]` (at the last level `[N, H, W, C_out]`); pushes the skips.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        x: SharedMap<B>,
        temb: View<'_, B>,
        skips: &mut Vec<SharedMap<B>>,
        mode: Mode,
    ) -> Result<(SharedMap<B>, Option<DownCache<B>>)> {
        let mut h = x;
        let mut layers = Vec::with_capacity(if mode.keeps() { self.layers.len() } else { 0 });
        for (residual, attention) in &self.layers {
            let input = ResidualInput { first: h, skip: None };
            let (mut y, cache) = residual.forward(backend, parameters, input, temb, true, mode)?;
            let mut attention_cache = None;
            if let Some(attention) = attention {
                (y, attention_cache) = attention.forward(backend, parameters, Arc::new(y), true, mode)?;
            }
            layers.extend(cache.map(|cache| (cache, attention_cache)));
            h = Arc::new(y);
            skips.push(Arc::clone(&h));
        }
        let mut downsampled = None;
        if let Some(downsample) = &self.downsample {
            let y = Arc::new(downsample.forward(backend, parameters, &h)?);
            downsampled = Some(std::mem::replace(&mut h, Arc::clone(&y)));
            skips.push(y);
        }
        Ok((h, mode.keeps().then_some(DownCache { layers, downsampled })))
    }

    /// The gradient of x. `dy` is the whole gradient of the result, its share along the skip included; for every
    /// layer, the gradient that its *input* got along a skip is popped off `skip_grads`.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn backward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        cache: DownCache<B>,
        dy: impl Into<MapGrad<B>>,
        skip_grads: &mut Vec<Tensor<B>>,
        temb: &mut Temb<'_, B>,
        mut grads: Option<&mut Parameters<B>>,
    ) -> Result<MapGrad<B>> {
        let mut d = dy.into();
        if let Some((layer, x)) = self.downsample.as_ref().zip(cache.downsampled) {
            let add = skip_grads.pop();
            d = layer.backward(backend, parameters, &x, d, add, grads.as_deref_mut())?;
        }
        for ((residual, attention), (cache, attention_cache)) in self.layers.iter().zip(cache.layers).rev() {
            if let Some((layer, cache)) = attention.as_ref().zip(attention_cache) {
                d = layer.backward(backend, parameters, cache, d, grads.as_deref_mut())?;
            }
            let add = skip_grads.pop();
            (d, _) = residual.backward(backend, parameters, cache, d, add, temb, grads.as_deref_mut())?;
        }
        Ok(d)
    }
}
