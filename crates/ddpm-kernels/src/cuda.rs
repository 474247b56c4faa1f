//! Every operation on CUDA, and what their launches share.

use std::ops::Range;

use ddpm_tensor::cuda::{Arguments, CudaBuffer, Launch};
use ddpm_tensor::random::Address;
use ddpm_tensor::{Cuda, Precision, Shape, Tensor, View};

use crate::adamw::AdamWStep;
use crate::conv::{Along, ConvGrad, Geometry, OperandGrad, ParameterGrads};
use crate::loss::{LossGrad, LossKind};
use crate::operand::{Epilogue, NormParameters, Operand, Output, Pulled};
use crate::posterior::StepCoefficients;
use crate::{Backend, KernelError, adamw, attention, conv, loss, noise, operand, posterior, statistics, sums};

type Result<T> = std::result::Result<T, KernelError>;
type V<'a> = View<'a, Cuda>;

impl Backend for Cuda {
    fn conv(&self, x: &Operand<'_, Self>, w: V<'_>, g: Geometry, e: &Epilogue<'_, Self>) -> Result<Output<Self>> {
        conv::cuda::conv(self, x, w, g, e)
    }

    fn conv_input_grad(&self, dy: V<'_>, w: V<'_>, g: Geometry, x: &Operand<'_, Self>) -> Result<Pulled<Self>> {
        conv::cuda::input_grad(self, dy, w, g, x)
    }

    fn conv_weight_grad(
        &self,
        dy: V<'_>,
        x: &Operand<'_, Self>,
        g: Geometry,
        grads: &mut CudaBuffer,
        dw: Range<usize>,
    ) -> Result<()> {
        conv::cuda::weight_grad(self, dy, x, g, grads, dw)
    }

    fn conv_parameter_grads(
        &self,
        dy: V<'_>,
        dy_sums: Option<V<'_>>,
        x: &Operand<'_, Self>,
        g: Geometry,
        grads: &mut CudaBuffer,
        dw: Range<usize>,
        db: Range<usize>,
    ) -> Result<()> {
        let product = (conv::cuda::Seen { dy, dy_sums }, (dw, Some(db)));
        conv::cuda::parameter_grads(self, &[product], g, x, None, grads).map(drop)
    }

    fn conv_backward(
        &self,
        products: &[ConvGrad<'_, Self>],
        g: Geometry,
        x: &Operand<'_, Self>,
        along: Along<Self>,
        grads: Option<ParameterGrads<'_, Self>>,
        sums: bool,
    ) -> Result<OperandGrad<Self>> {
        conv::cuda::backward(self, products, g, x, along, grads, sums)
    }

    fn attention(&self, q: V<'_>, k: V<'_>, v: V<'_>, heads: usize, scale: f32) -> Result<Tensor<Self>> {
        attention::cuda::attention(self, q, k, v, heads, scale)
    }

    fn attention_grad(
        &self,
        q: V<'_>,
        k: V<'_>,
        v: V<'_>,
        d_o: V<'_>,
        heads: usize,
        scale: f32,
    ) -> Result<[Tensor<Self>; 3]> {
        attention::cuda::attention_grad(self, q, k, v, d_o, heads, scale)
    }

    fn operand_value(&self, x: &Operand<'_, Self>) -> Result<Tensor<Self>> {
        operand::cuda::value(self, x)
    }

    fn operand_pull(&self, dv: V<'_>, x: &Operand<'_, Self>) -> Result<Pulled<Self>> {
        operand::cuda::pull(self, dv, x)
    }

    fn operand_grad(
        &self,
        x: &Operand<'_, Self>,
        pulled: Pulled<Self>,
        add: [Option<V<'_>>; 2],
    ) -> Result<(Tensor<Self>, Option<Tensor<Self>>)> {
        operand::cuda::grad(self, x, pulled, add)
    }

    fn norm_param_grad(
        &self,
        x: &Operand<'_, Self>,
        sums: V<'_>,
        grads: &mut CudaBuffer,
        d_gamma: Range<usize>,
        d_beta: Range<usize>,
    ) -> Result<Option<Tensor<Self>>> {
        operand::cuda::norm_param_grad(self, x, sums, grads, d_gamma, d_beta)
    }

    fn channel_statistics(&self, x: V<'_>) -> Result<Tensor<Self>> {
        statistics::cuda::channels(self, x)
    }

    fn norm_statistics(
        &self,
        parts: [Option<V<'_>>; 2],
        pixels: usize,
        groups: usize,
        eps: f64,
    ) -> Result<Tensor<Self>> {
        statistics::cuda::norm(self, parts, pixels, groups, eps, None)
    }

    fn norm_statistics_for(
        &self,
        parts: [Option<V<'_>>; 2],
        pixels: usize,
        groups: usize,
        eps: f64,
        norm: &NormParameters<'_, Self>,
    ) -> Result<Tensor<Self>> {
        statistics::cuda::norm(self, parts, pixels, groups, eps, Some(norm))
    }

    fn pixel_sums(&self, x: V<'_>) -> Result<Tensor<Self>> {
        sums::cuda::pixel_sums(self, x)
    }

    fn batch_sums(&self, rows: V<'_>, grads: &mut CudaBuffer, range: Range<usize>) -> Result<()> {
        sums::cuda::batch_sums(self, rows, grads, range)
    }

    fn gather_rows(&self, table: V<'_>, indices: &[usize]) -> Result<Tensor<Self>> {
        sums::cuda::gather_rows(self, table, indices)
    }

    fn scatter_rows(&self, rows: V<'_>, indices: &[usize], grads: &mut CudaBuffer, range: Range<usize>) -> Result<()> {
        sums::cuda::scatter_rows(self, rows, indices, grads, range)
    }

    fn add_scaled(&self, y: &mut Tensor<Self>, factor: f64, x: V<'_>) -> Result<()> {
        sums::cuda::add_scaled(self, y, factor, x)
    }

    fn affine(&self, x: V<'_>, factor: f64, shift: f64) -> Result<Tensor<Self>> {
        sums::cuda::affine(self, x, factor, shift)
    }

    fn normals(&self, shape: Shape, address: Address) -> Result<Tensor<Self>> {
        noise::cuda::normals(self, shape, address)
    }

    fn noise(&self, x_0: V<'_>, coefficients: &[(f32, f32)], address: Address) -> Result<(Tensor<Self>, Tensor<Self>)> {
        noise::cuda::noise(self, x_0, coefficients, address)
    }

    fn reverse_step(
        &self,
        x: V<'_>,
        output: V<'_>,
        c: &StepCoefficients,
        address: Address,
        x_0: bool,
    ) -> Result<(Tensor<Self>, Option<Tensor<Self>>)> {
        posterior::cuda::reverse_step(self, x, output, c, address, x_0)
    }

    fn loss(
        &self,
        kind: LossKind,
        output: V<'_>,
        target: V<'_>,
        weights: &[f32],
        scale: f64,
    ) -> Result<LossGrad<Self>> {
        loss::cuda::loss(self, kind, output, target, weights, scale)
    }

    fn squared_norm(&self, x: &CudaBuffer) -> Result<f64> {
        adamw::cuda::squared_norm(self, x)
    }

    fn adamw(
        &self,
        step: &AdamWStep,
        parameters: &mut CudaBuffer,
        grads: &mut CudaBuffer,
        m: &mut CudaBuffer,
        v: &mut CudaBuffer,
        ema: &mut CudaBuffer,
    ) -> Result<()> {
        adamw::cuda::adamw(self, step, parameters, grads, m, v, ema)
    }
}

/// How tensor cores see a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// The nearest of bf16.
    Rounded,
    /// The sum of two of bf16.
    Split,
}

/// On tensor cores, or (`None`) by multiply-adds of f32: a matter of precision and of what the GPU is.
pub(crate) fn numbers(cuda: &Cuda) -> Option<Numbers> {
    match cuda.precision() {
        Precision::Strict => None,
        _ if !cuda.info().multiplies_bf16() => None,
        Precision::F32 => Some(Numbers::Split),
        Precision::Bf16 => Some(Numbers::Rounded),
    }
}

/// A size that kernels count in 32 bits.
pub(crate) fn small(operation: &'static str, size: usize) -> Result<u32> {
    u32::try_from(size).map_err(|_| KernelError::Setting {
        operation,
        what: format!("{size} is too many of one kind for the GPU's kernels"),
    })
}

/// Fails unless a range lies in a buffer.
pub(crate) fn range_of(buffer: &CudaBuffer, range: &Range<usize>) -> Result<()> {
    View::<Cuda>::of(buffer, range.start, [range.len()])?;
    Ok(())
}

/// A view as an argument to be read.
pub(crate) fn view(arguments: Arguments, v: V<'_>) -> Arguments {
    arguments.input(v.buffer(), v.range().start)
}

/// A view, or no address.
pub(crate) fn view_or_null(arguments: Arguments, v: Option<V<'_>>) -> Arguments {
    match v {
        Some(v) => view(arguments, v),
        None => arguments.value(0u64),
    }
}

/// A block for 32 channels of each image (`kernels/channels.cuh`).
pub(crate) fn per_channel(images: usize, channels: usize) -> Launch {
    Launch { grid: [channels.div_ceil(32) as u32, images.min(65535) as u32, 1], block: 256, shared: 0 }
}

/// A thread for four elements of each image (`kernels/images.cuh`).
pub(crate) fn over_images(images: usize, elements: usize) -> Launch {
    let Launch { grid: [x, _, _], block, shared } = Launch::over(elements.div_ceil(4));
    Launch { grid: [x, images.min(65535) as u32, 1], block, shared }
}
