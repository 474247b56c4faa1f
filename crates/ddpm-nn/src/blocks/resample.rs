use ddpm_kernels::conv::{Along, Geometry, Padding};
use ddpm_kernels::{Backend, Epilogue, Operand};
use ddpm_tensor::Tensor;

use crate::layers::{Conv, FeatureMap, MapGrad};
use crate::layout::{Init, Scope};
use crate::{Parameters, Result};

/// Halves height and width by a 3x3 convolution of stride 2.
#[derive(Debug, Clone, PartialEq)]
pub struct Downsample {
    conv: Conv,
}

impl Downsample {
    /// Adds `conv` at a place of a layout. [`Padding::End`] is the paper's, [`Padding::Same`] diffusers' default.
    pub fn new(mut at: Scope<'_>, channels: usize, padding: Padding) -> Self {
        Self { conv: Conv::new(at.at("conv"), Geometry::down(padding), channels, channels, Init::PAPER) }
    }

    /// `[N, H, W, C]` → `[N, H/2, W/2, C]`.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        x: &FeatureMap<B>,
    ) -> Result<FeatureMap<B>> {
        let epilogue = Epilogue { statistics: true, ..Epilogue::default() };
        Ok(self.conv.forward(backend, parameters, &Operand::plain(x.x.view()), epilogue)?.into())
    }

    /// The gradient of x, to which `add` is added.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn backward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        x: &FeatureMap<B>,
        dy: impl Into<MapGrad<B>>,
        add: Option<Tensor<B>>,
        grads: Option<&mut Parameters<B>>,
    ) -> Result<MapGrad<B>> {
        let operand = Operand::plain(x.x.view());
        let along = Along { whole: None, first: add };
        let (dy, learns) = (dy.into(), grads.is_some());
        Ok(self.conv.backward_to_parts(backend, parameters, &operand, None, dy.seen(), along, grads, learns)?.into())
    }
}

/// Doubles height and width: each pixel becomes four alike, then a 3x3 convolution.
#[derive(Debug, Clone, PartialEq)]
pub struct Upsample {
    conv: Conv,
}

impl Upsample {
    /// Adds `conv` at a place of a layout.
    pub fn new(mut at: Scope<'_>, channels: usize) -> Self {
        Self { conv: Conv::new(at.at("conv"), Geometry::THREE, channels, channels, Init::PAPER) }
    }

    /// `[N, H, W, C]` → `[N, 2H, 2W, C]`.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        x: &FeatureMap<B>,
    ) -> Result<FeatureMap<B>> {
        let epilogue = Epilogue { statistics: true, ..Epilogue::default() };
        let operand = Operand::plain(x.x.view()).nearest_2x();
        Ok(self.conv.forward(backend, parameters, &operand, epilogue)?.into())
    }

    /// The gradient of x.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn backward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        x: &FeatureMap<B>,
        dy: impl Into<MapGrad<B>>,
        grads: Option<&mut Parameters<B>>,
    ) -> Result<MapGrad<B>> {
        let operand = Operand::plain(x.x.view()).nearest_2x();
        let (dy, none, learns) = (dy.into(), Along::default(), grads.is_some());
        Ok(self.conv.backward_to_parts(backend, parameters, &operand, None, dy.seen(), none, grads, learns)?.into())
    }
}
