//! Every operation on the CPU.

use std::ops::Range;

use ddpm_tensor::cpu::CpuBuffer;
use ddpm_tensor::random::Address;
use ddpm_tensor::{Cpu, Element, Shape, Tensor, View};

use crate::adamw::AdamWStep;
use crate::conv::Geometry;
use crate::loss::{LossGrad, LossKind};
use crate::operand::{Epilogue, Operand, Output, Pulled};
use crate::posterior::StepCoefficients;
use crate::{Backend, KernelError, adamw, attention, conv, loss, noise, operand, posterior, statistics, sums};

type Result<T> = std::result::Result<T, KernelError>;
type V<'a, T> = View<'a, Cpu<T>>;

/// What a product is called where time is told: by its kernel and stride, dense layers apart.
type Names = [&'static str; 4];
const CONV: Names = ["conv 3x3", "conv 3x3/2", "conv 1x1", "dense"];
const INPUT_GRAD: Names =
    ["conv 3x3 input gradient", "conv 3x3/2 input gradient", "conv 1x1 input gradient", "dense input gradient"];
const WEIGHT_GRAD: Names =
    ["conv 3x3 weight gradient", "conv 3x3/2 weight gradient", "conv 1x1 weight gradient", "dense weight gradient"];

fn kind<T: Element>(x: &Operand<'_, Cpu<T>>, g: Geometry, [three, halving, one, dense]: Names) -> &'static str {
    let [_, h, w, _] = x.size();
    match (g.kernel, g.stride) {
        (1, _) if h * w == 1 => dense,
        (1, _) => one,
        (_, 1) => three,
        _ => halving,
    }
}

/// One body for each number type, and no generic one: that would be compiled again, with all engines, in every crate that uses it.
macro_rules! backend {
    ($($T:ty)*) => {$(
        impl Backend for Cpu<$T> {
            fn conv(&self, x: &Operand<'_, Self>, w: V<'_, $T>, g: Geometry, e: &Epilogue<'_, Self>) -> Result<Output<Self>> {
                self.timed(kind(x, g, CONV), || conv::cpu::conv(self, x, w, g, e))
            }

            fn conv_input_grad(&self, dy: V<'_, $T>, w: V<'_, $T>, g: Geometry, x: &Operand<'_, Self>) -> Result<Pulled<Self>> {
                self.timed(kind(x, g, INPUT_GRAD), || conv::cpu::input_grad(self, dy, w, g, x))
            }

            fn conv_weight_grad(
                &self,
                dy: V<'_, $T>,
                x: &Operand<'_, Self>,
                g: Geometry,
                grads: &mut CpuBuffer<$T>,
                dw: Range<usize>,
            ) -> Result<()> {
                self.timed(kind(x, g, WEIGHT_GRAD), || conv::cpu::weight_grad(self, dy, x, g, grads, dw))
            }

            fn attention(&self, q: V<'_, $T>, k: V<'_, $T>, v: V<'_, $T>, heads: usize, scale: f32) -> Result<Tensor<Self>> {
                self.timed("attention", || attention::cpu::attention(self, q, k, v, heads, scale))
            }

            fn attention_grad(
                &self,
                q: V<'_, $T>,
                k: V<'_, $T>,
                v: V<'_, $T>,
                d_o: V<'_, $T>,
                heads: usize,
                scale: f32,
            ) -> Result<[Tensor<Self>; 3]> {
                self.timed("attention gradient", || attention::cpu::attention_grad(self, q, k, v, d_o, heads, scale))
            }

            fn operand_value(&self, x: &Operand<'_, Self>) -> Result<Tensor<Self>> {
                self.timed("operand value", || operand::cpu::value(self, x))
            }

            fn operand_pull(&self, dv: V<'_, $T>, x: &Operand<'_, Self>) -> Result<Pulled<Self>> {
                self.timed("operand pull", || operand::cpu::pull(self, dv, x))
            }

            fn operand_grad(
                &self,
                x: &Operand<'_, Self>,
                pulled: Pulled<Self>,
                add: [Option<V<'_, $T>>; 2],
            ) -> Result<(Tensor<Self>, Option<Tensor<Self>>)> {
                self.timed("operand gradient", || operand::cpu::grad(self, x, pulled, add))
            }

            fn norm_param_grad(
                &self,
                x: &Operand<'_, Self>,
                sums: V<'_, $T>,
                grads: &mut CpuBuffer<$T>,
                d_gamma: Range<usize>,
                d_beta: Range<usize>,
            ) -> Result<Option<Tensor<Self>>> {
                self.timed("norm gradient", || operand::cpu::norm_param_grad(self, x, sums, grads, d_gamma, d_beta))
            }

            fn channel_statistics(&self, x: V<'_, $T>) -> Result<Tensor<Self>> {
                self.timed("statistics", || statistics::cpu::channels(self, x))
            }

            fn norm_statistics(
                &self,
                parts: [Option<V<'_, $T>>; 2],
                pixels: usize,
                groups: usize,
                eps: f64,
            ) -> Result<Tensor<Self>> {
                self.timed("statistics", || statistics::cpu::norm(self, parts, pixels, groups, eps))
            }

            fn pixel_sums(&self, x: V<'_, $T>) -> Result<Tensor<Self>> {
                self.timed("sums", || sums::cpu::pixel_sums(self, x))
            }

            fn batch_sums(&self, rows: V<'_, $T>, grads: &mut CpuBuffer<$T>, range: Range<usize>) -> Result<()> {
                self.timed("sums", || sums::cpu::batch_sums(self, rows, grads, range))
            }

            fn gather_rows(&self, table: V<'_, $T>, indices: &[usize]) -> Result<Tensor<Self>> {
                self.timed("rows", || sums::cpu::gather_rows(self, table, indices))
            }

            fn scatter_rows(
                &self,
                rows: V<'_, $T>,
                indices: &[usize],
                grads: &mut CpuBuffer<$T>,
                range: Range<usize>,
            ) -> Result<()> {
                self.timed("rows", || sums::cpu::scatter_rows(self, rows, indices, grads, range))
            }

            fn add_scaled(&self, y: &mut Tensor<Self>, factor: f64, x: V<'_, $T>) -> Result<()> {
                self.timed("sums", || sums::cpu::add_scaled(self, y, factor, x))
            }

            fn affine(&self, x: V<'_, $T>, factor: f64, shift: f64) -> Result<Tensor<Self>> {
                self.timed("sums", || sums::cpu::affine(self, x, factor, shift))
            }

            fn normals(&self, shape: Shape, address: Address) -> Result<Tensor<Self>> {
                self.timed("noise", || noise::cpu::normals(self, shape, address))
            }

            fn noise(
                &self,
                x_0: V<'_, $T>,
                coefficients: &[(f32, f32)],
                address: Address,
            ) -> Result<(Tensor<Self>, Tensor<Self>)> {
                self.timed("noise", || noise::cpu::noise(self, x_0, coefficients, address))
            }

            fn reverse_step(
                &self,
                x: V<'_, $T>,
                output: V<'_, $T>,
                c: &StepCoefficients,
                address: Address,
                x_0: bool,
            ) -> Result<(Tensor<Self>, Option<Tensor<Self>>)> {
                self.timed("reverse step", || posterior::cpu::reverse_step(self, x, output, c, address, x_0))
            }

            fn loss(
                &self,
                kind: LossKind,
                output: V<'_, $T>,
                target: V<'_, $T>,
                weights: &[f32],
                scale: f64,
            ) -> Result<LossGrad<Self>> {
                self.timed("loss", || loss::cpu::loss(self, kind, output, target, weights, scale))
            }

            fn squared_norm(&self, x: &CpuBuffer<$T>) -> Result<f64> {
                Ok(self.timed("optimiser", || adamw::cpu::squared_norm(self, x)))
            }

            fn adamw(
                &self,
                step: &AdamWStep,
                parameters: &mut CpuBuffer<$T>,
                grads: &mut CpuBuffer<$T>,
                m: &mut CpuBuffer<$T>,
                v: &mut CpuBuffer<$T>,
                ema: &mut CpuBuffer<$T>,
            ) -> Result<()> {
                self.timed("optimiser", || adamw::cpu::adamw(self, step, parameters, grads, m, v, ema))
            }
        }
    )*};
}

backend!(f32 f64);
