use ddpm_kernels::conv::{Along, ConvGrad, Geometry, OperandGrad, ParameterGrads};
use ddpm_kernels::{Backend, Epilogue, Operand, Output, Pulled};
use ddpm_tensor::View;

use super::GroupNorm;
use crate::layout::{Init, ParamId, Role, Scope};
use crate::{Parameters, Result};

/// A convolution with bias: `y[p] = Σ_tap x[s·p + tap − pad]·w[tap] + b`, its input an [`Operand`], its result through
/// an [`Epilogue`].
#[derive(Debug, Clone, PartialEq)]
pub struct Conv {
    weight: ParamId,
    bias: ParamId,
    geometry: Geometry,
    c_in: usize,
    c_out: usize,
}

impl Conv {
    /// Adds `weight [k, k, C_in, C_out]` and `bias [C_out]` at a place of a layout.
    pub fn new(mut at: Scope<'_>, geometry: Geometry, c_in: usize, c_out: usize, init: Init) -> Self {
        let k = geometry.kernel;
        let weight = at.add("weight", [k, k, c_in, c_out], Role::ConvWeight, init);
        Self::with_weight(at, weight, geometry, c_in, c_out)
    }

    pub(super) fn with_weight(
        mut at: Scope<'_>,
        weight: ParamId,
        geometry: Geometry,
        c_in: usize,
        c_out: usize,
    ) -> Self {
        let bias = at.add("bias", [c_out], Role::Bias, Init::Constant(0.0));
        Self { weight, bias, geometry, c_in, c_out }
    }

    /// Channels of the result.
    pub fn c_out(&self) -> usize {
        self.c_out
    }

    /// The weights as `[k, k, C_in, C_out]`, however they are stored.
    fn weight<'a, B: Backend>(&self, parameters: &'a Parameters<B>) -> Result<View<'a, B>> {
        let k = self.geometry.kernel;
        Ok(parameters.view(self.weight)?.reshape([k, k, self.c_in, self.c_out])?)
    }

    /// The convolution; the epilogue's bias is the layer's own.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        x: &Operand<'_, B>,
        epilogue: Epilogue<'_, B>,
    ) -> Result<Output<B>> {
        let epilogue = Epilogue { bias: Some(parameters.view(self.bias)?), ..epilogue };
        Ok(backend.conv(x, self.weight(parameters)?, self.geometry, &epilogue)?)
    }

    /// Adds the gradients of weights and bias; `sums [N, C_out]` are dy's pixel sums, where they are known already.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn parameter_grads<B: Backend>(
        &self,
        backend: &B,
        x: &Operand<'_, B>,
        dy: View<'_, B>,
        sums: Option<View<'_, B>>,
        grads: &mut Parameters<B>,
    ) -> Result<()> {
        let (dw, db) = (grads.range(self.weight), grads.range(self.bias));
        Ok(backend.conv_parameter_grads(dy, sums, x, self.geometry, grads.buffer_mut(), dw, db)?)
    }

    /// Adds the gradient of the weights alone, for a bias whose gradient is known to be zero.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn weight_grad<B: Backend>(
        &self,
        backend: &B,
        x: &Operand<'_, B>,
        dy: View<'_, B>,
        grads: &mut Parameters<B>,
    ) -> Result<()> {
        let dw = grads.range(self.weight);
        Ok(backend.conv_weight_grad(dy, x, self.geometry, grads.buffer_mut(), dw)?)
    }

    /// The gradient of the operand, up to what its norm still needs.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn input_grad<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        x: &Operand<'_, B>,
        dy: View<'_, B>,
    ) -> Result<Pulled<B>> {
        Ok(backend.conv_input_grad(dy, self.weight(parameters)?, self.geometry, x)?)
    }

    /// [`Conv::parameter_grads`] if there are gradients to add to, then [`Conv::input_grad`].
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn backward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        x: &Operand<'_, B>,
        dy: View<'_, B>,
        grads: Option<&mut Parameters<B>>,
    ) -> Result<Pulled<B>> {
        if let Some(grads) = grads {
            self.parameter_grads(backend, x, dy, None, grads)?;
        }
        self.input_grad(backend, parameters, x, dy)
    }

    /// What [`Backend::conv_backward`] takes of the layer; `sums [N, C_out]` are dy's pixel sums, where they are known already.
    pub(crate) fn seen_from<'a, B: Backend>(
        &self,
        parameters: &'a Parameters<B>,
        dy: View<'a, B>,
        sums: Option<View<'a, B>>,
    ) -> Result<ConvGrad<'a, B>> {
        let (dw, db) = (parameters.range(self.weight), Some(parameters.range(self.bias)));
        Ok(ConvGrad { dy, dy_sums: sums, w: self.weight(parameters)?, dw, db })
    }

    /// The gradients of the stored parts of x, to which is added what comes `along`; of weights, bias and x's norm, which is
    /// `norm`, if there are gradients to add to. `sums`: whether those of the first part over pixels are wanted.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    #[allow(clippy::too_many_arguments)] // a convolution has many parts
    pub fn backward_to_parts<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        x: &Operand<'_, B>,
        norm: Option<&GroupNorm>,
        (dy, dy_sums): (View<'_, B>, Option<View<'_, B>>),
        along: Along<B>,
        grads: Option<&mut Parameters<B>>,
        sums: bool,
    ) -> Result<OperandGrad<B>> {
        let product = self.seen_from(parameters, dy, dy_sums)?;
        let grads = grads.map(|grads| {
            let norm = norm.map(|norm| norm.ranges(grads));
            ParameterGrads { buffer: grads.buffer_mut(), norm }
        });
        Ok(backend.conv_backward(&[product], self.geometry, x, along, grads, sums)?)
    }
}
