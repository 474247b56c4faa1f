use ddpm_kernels::conv::{Along, ConvGrad, Geometry, OperandGrad};
use ddpm_kernels::{Backend, Epilogue, Operand, Output, Pulled};
use ddpm_tensor::View;

use super::Conv;
use crate::layout::{Init, Role, Scope};
use crate::{Parameters, Result};

/// A dense layer `y = x·w + b` of vectors `[N, C_in]` or of every pixel of `[N, H, W, C_in]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    product: Conv,
}

impl Dense {
    /// Adds `weight [C_in, C_out]` and `bias [C_out]` at a place of a layout.
    pub fn new(mut at: Scope<'_>, c_in: usize, c_out: usize, init: Init) -> Self {
        let weight = at.add("weight", [c_in, c_out], Role::DenseWeight, init);
        Self { product: Conv::with_weight(at, weight, Geometry::ONE, c_in, c_out) }
    }

    /// Width of the result.
    pub fn c_out(&self) -> usize {
        self.product.c_out()
    }

    /// The product; the epilogue's bias is the layer's own.
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
        self.product.forward(backend, parameters, x, epilogue)
    }

    /// See [`Conv::parameter_grads`].
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn parameter_grads<B: Backend>(
        &self,
        backend: &B,
        x: &Operand<'_, B>,
        dy: View<'_, B>,
        grads: &mut Parameters<B>,
    ) -> Result<()> {
        self.product.parameter_grads(backend, x, dy, None, grads)
    }

    /// See [`Conv::weight_grad`].
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
        self.product.weight_grad(backend, x, dy, grads)
    }

    /// See [`Conv::input_grad`].
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
        self.product.input_grad(backend, parameters, x, dy)
    }

    /// See [`Conv::backward`].
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
        self.product.backward(backend, parameters, x, dy, grads)
    }

    /// See [`Conv::seen_from`].
    pub(crate) fn seen_from<'a, B: Backend>(
        &self,
        parameters: &'a Parameters<B>,
        dy: View<'a, B>,
        sums: Option<View<'a, B>>,
    ) -> Result<ConvGrad<'a, B>> {
        self.product.seen_from(parameters, dy, sums)
    }

    /// The gradient of x without a norm, to which `along` is added; see [`Conv::backward_to_parts`].
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn backward_to_parts<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        x: &Operand<'_, B>,
        (dy, dy_sums): (View<'_, B>, Option<View<'_, B>>),
        along: Along<B>,
        grads: Option<&mut Parameters<B>>,
    ) -> Result<OperandGrad<B>> {
        self.product.backward_to_parts(backend, parameters, x, None, (dy, dy_sums), along, grads, false)
    }
}
