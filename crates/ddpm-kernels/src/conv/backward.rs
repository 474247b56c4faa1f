//! Convolutions of one operand, all the way back: to weights, biases, the operand's norm and its stored parts.

use std::ops::Range;

use ddpm_tensor::{Device, Tensor, View};

use super::Geometry;
use crate::{Backend, KernelError, Operand, Parts, Pulled};

/// A convolution of an operand, seen from its result.
#[derive(Debug, Clone)]
pub struct ConvGrad<'a, B: Device> {
    /// Gradient of the result before its epilogue, `[N, H', W', O]`.
    pub dy: View<'a, B>,
    /// Its sums over pixels `[N, O]`, where they are known.
    pub dy_sums: Option<View<'a, B>>,
    /// The weights, `[k, k, C, O]`.
    pub w: View<'a, B>,
    /// Where the gradient of the weights is added.
    pub dw: Range<usize>,
    /// Where that of the bias is added, if it has one that is not known to be zero.
    pub db: Option<Range<usize>>,
}

/// What is added to the gradient of an operand's stored parts.
#[derive(Debug)]
pub struct Along<B: Device> {
    /// `[N, H, W, C]` of all parts together: what comes along a shortcut.
    pub whole: Option<Tensor<B>>,
    /// `[N, H, W, C_1]` of the first part.
    pub first: Option<Tensor<B>>,
}

impl<B: Device> Default for Along<B> {
    fn default() -> Self {
        Self { whole: None, first: None }
    }
}

/// Where gradients of parameters are added.
#[derive(Debug)]
pub struct ParameterGrads<'a, B: Device> {
    /// All of them.
    pub buffer: &'a mut B::Buffer,
    /// Those of the operand's γ and β.
    pub norm: Option<[Range<usize>; 2]>,
}

/// Gradients of an operand.
#[derive(Debug)]
pub struct OperandGrad<B: Device> {
    /// Of its first part.
    pub first: Tensor<B>,
    /// Of its second.
    pub second: Option<Tensor<B>>,
    /// Sums over the pixels of `first`, `[N, C_1]`, if they were asked for.
    pub first_sums: Option<Tensor<B>>,
    /// Of its norm's scale and shift, `[N, 2C]`, if it has them and gradients of parameters were asked for.
    pub scale_shift: Option<Tensor<B>>,
}

/// [`Backend::conv_backward`] made of the other operations.
pub(crate) fn in_turn<B: Backend>(
    backend: &B,
    products: &[ConvGrad<'_, B>],
    g: Geometry,
    x: &Operand<'_, B>,
    along: Along<B>,
    mut grads: Option<ParameterGrads<'_, B>>,
    sums: bool,
) -> Result<OperandGrad<B>, KernelError> {
    let mut all: Option<Pulled<B>> = None;
    for p in products {
        if let Some(grads) = &mut grads {
            let dw = p.dw.clone();
            match p.db.clone() {
                Some(db) => backend.conv_parameter_grads(p.dy, p.dy_sums, x, g, grads.buffer, dw, db)?,
                None => backend.conv_weight_grad(p.dy, x, g, grads.buffer, dw)?,
            }
        }
        let pulled = backend.conv_input_grad(p.dy, p.w, g, x)?;
        match &mut all {
            None => all = Some(pulled),
            Some(all) => {
                backend.add_scaled(&mut all.g, 1.0, pulled.g.view())?;
                if let (Some(sums), Some(more)) = (&mut all.sums, pulled.sums) {
                    backend.add_scaled(sums, 1.0, more.view())?;
                }
            }
        }
    }
    let Some(pulled) = all else {
        return Err(KernelError::Setting { operation: "conv_backward", what: "there is no product".into() });
    };
    let mut scale_shift = None;
    if let (Some(ParameterGrads { buffer, norm: Some([d_gamma, d_beta]) }), Some(sums)) = (grads, &pulled.sums) {
        scale_shift = backend.norm_param_grad(x, sums.view(), buffer, d_gamma, d_beta)?;
    }
    let add = match (along.whole, along.first, x.parts) {
        (None, first, _) => (first, None),
        (Some(whole), None, Parts::One(_)) => (Some(whole), None),
        (Some(whole), Some(mut first), Parts::One(_)) => {
            backend.add_scaled(&mut first, 1.0, whole.view())?;
            (Some(first), None)
        }
        (Some(g), first, parts @ Parts::Two(a, _)) => {
            let plain = Operand { parts, ..Operand::plain(a) };
            let add = [first.as_ref().map(Tensor::view), None];
            let (first, second) = backend.operand_grad(&plain, Pulled { g, sums: None }, add)?;
            (Some(first), second)
        }
    };
    let add = [add.0.as_ref().map(Tensor::view), add.1.as_ref().map(Tensor::view)];
    let (first, second) = backend.operand_grad(x, pulled, add)?;
    let first_sums = if sums { Some(backend.pixel_sums(first.view())?) } else { None };
    Ok(OperandGrad { first, second, first_sums, scale_shift })
}
