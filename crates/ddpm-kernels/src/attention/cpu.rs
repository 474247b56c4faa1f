//! Attention on the CPU: each (image, head) is cut into blocks of queries, whose rows of weights are made, used and
//! forgotten; the backward pass makes them again.

use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, Tensor, View, simd};

use crate::KernelError;
use crate::error::expect;
use crate::product::{Matrix, Packed, multiply};

/// Queries whose weights are held at once; gradients of keys and values are summed over such blocks in order.
const BLOCK: usize = 64;
/// Queries of one forward job: enough to be worth packing keys and values for.
const PART: usize = 4 * BLOCK;
/// Independent sums along a row of weights, added in order at its end.
const LANES: usize = 16;

/// Where the heads' numbers lie.
#[derive(Clone, Copy)]
struct Heads {
    images: usize,
    pixels: usize,
    channels: usize,
    heads: usize,
    /// Channels of one head.
    size: usize,
}

impl Heads {
    fn of<T: Element>(
        operation: &'static str,
        q: View<'_, Cpu<T>>,
        others: &[(&'static str, View<'_, Cpu<T>>)],
        heads: usize,
    ) -> Result<Self, KernelError> {
        for &(operand, view) in others {
            expect(operation, operand, q.shape(), view.shape())?;
        }
        let [images, h, w, channels] = q.shape().nhwc();
        if heads == 0 || !channels.is_multiple_of(heads) {
            let what = format!("{channels} channels cannot be shared among {heads} heads");
            return Err(KernelError::Setting { operation, what });
        }
        Ok(Self { images, pixels: h * w, channels, heads, size: channels / heads })
    }

    /// Whether there is nothing to compute.
    fn is_empty(self) -> bool {
        self.images * self.pixels * self.channels == 0
    }

    /// Where row `pixel` of a head begins; job's image is `job / heads`, its head `job % heads`.
    fn row(self, job: usize, pixel: usize) -> usize {
        ((job / self.heads) * self.pixels + pixel) * self.channels + (job % self.heads) * self.size
    }

    /// `[P, size]` of one head, from row `pixel` on.
    fn matrix<T: Element>(self, x: &[T], job: usize, pixel: usize) -> Matrix<'_, T> {
        Matrix::rows(&x[self.row(job, pixel)..], self.channels)
    }

    /// Rough time of `products` products of P x P x size for all images, in nanoseconds.
    fn nanoseconds(self, products: usize) -> usize {
        products * self.images * self.pixels * self.pixels * self.channels / 40
    }

    /// Copies rows of `size` to the head's rows in `out`, from row `pixel` on, each times `factor(row)`.
    ///
    /// # Safety
    /// No other thread may write these rows of this head at the same time.
    unsafe fn store<T: Element>(
        self,
        out: &DisjointMut<'_, T>,
        job: usize,
        pixel: usize,
        rows: &[T],
        factor: impl Fn(usize) -> T,
    ) {
        for (i, from) in rows.chunks_exact(self.size).enumerate() {
            let first = self.row(job, pixel + i);
            // SAFETY: this head's channels of this row are ours, by the caller's promise.
            let to = unsafe { out.part(first..first + self.size) };
            for (to, &from) in to.iter_mut().zip(from) {
                *to = from * factor(i);
            }
        }
    }
}

/// [`Backend::attention`](crate::Backend::attention).
pub(crate) fn attention<T: Element>(
    cpu: &Cpu<T>,
    q: View<'_, Cpu<T>>,
    k: View<'_, Cpu<T>>,
    v: View<'_, Cpu<T>>,
    heads: usize,
    scale: f32,
) -> Result<Tensor<Cpu<T>>, KernelError> {
    let at = Heads::of("attention", q, &[("k", k), ("v", v)], heads)?;
    let mut o = Tensor::alloc(cpu, q.shape())?;
    if at.is_empty() {
        return Ok(o);
    }
    let (q, k, v) = (q.as_slice(), k.as_slice(), v.as_slice());
    let (pixels, size) = (at.pixels, at.size);
    let parts = pixels.div_ceil(PART);
    let out = DisjointMut::new(o.as_mut_slice());
    cpu.parallel(at.images * heads * parts, at.nanoseconds(2), |index| {
        let (job, part) = (index / parts, index % parts);
        let keys = Packed::new(cpu, at.matrix(k, job, 0).transposed(), size, pixels);
        let values = Packed::new(cpu, at.matrix(v, job, 0), pixels, size);
        let mut weights = cpu.scratch(BLOCK * pixels);
        let mut rows = cpu.scratch(BLOCK * size);
        let mut inverse_sums = [T::ZERO; BLOCK];
        for first in (part * PART..pixels.min((part + 1) * PART)).step_by(BLOCK) {
            let count = BLOCK.min(pixels - first);
            let (weights, rows) = (&mut weights[..count * pixels], &mut rows[..count * size]);
            multiply(at.matrix(q, job, first), count, &keys, false, weights, pixels);
            exponentials(cpu.isa(), weights, pixels, T::of_f32(scale), &mut inverse_sums);
            multiply(Matrix::rows(weights, pixels), count, &values, false, rows, size);
            // SAFETY: each job stores its own head's rows of its own part.
            unsafe { at.store(&out, job, first, rows, |i| inverse_sums[i]) };
        }
    });
    Ok(o)
}

/// [`Backend::attention_grad`](crate::Backend::attention_grad).
///
/// With weights W = softmax(S), S = scale·q·kᵀ: `dv = Wᵀ·do`, `dW = do·vᵀ`, `dS = W∘(dW − Σ_j W∘dW)`, `dq = scale·dS·k`,
/// `dk = scale·dSᵀ·q`.
pub(crate) fn attention_grad<T: Element>(
    cpu: &Cpu<T>,
    q: View<'_, Cpu<T>>,
    k: View<'_, Cpu<T>>,
    v: View<'_, Cpu<T>>,
    d_o: View<'_, Cpu<T>>,
    heads: usize,
    scale: f32,
) -> Result<[Tensor<Cpu<T>>; 3], KernelError> {
    let at = Heads::of("attention_grad", q, &[("k", k), ("v", v), ("the output's gradient", d_o)], heads)?;
    let shape = q.shape();
    let (mut dq, mut dk, mut dv) = (Tensor::alloc(cpu, shape)?, Tensor::alloc(cpu, shape)?, Tensor::alloc(cpu, shape)?);
    if at.is_empty() {
        return Ok([dq, dk, dv]);
    }
    let (q, k, v, d_o) = (q.as_slice(), k.as_slice(), v.as_slice(), d_o.as_slice());
    let (pixels, size) = (at.pixels, at.size);
    let scale = T::of_f32(scale);
    let [out_q, out_k, out_v] = [&mut dq, &mut dk, &mut dv].map(|t| DisjointMut::new(t.as_mut_slice()));
    cpu.parallel(at.images * heads, at.nanoseconds(5), |job| {
        let keys_turned = Packed::new(cpu, at.matrix(k, job, 0).transposed(), size, pixels);
        let values_turned = Packed::new(cpu, at.matrix(v, job, 0).transposed(), size, pixels);
        let keys = Packed::new(cpu, at.matrix(k, job, 0), pixels, size);
        let (mut weights, mut d_weights) = (cpu.scratch(BLOCK * pixels), cpu.scratch(BLOCK * pixels));
        let (mut dk, mut dv) = (cpu.scratch(pixels * size), cpu.scratch(pixels * size));
        let mut rows = cpu.scratch(BLOCK * size);
        let mut inverse_sums = [T::ZERO; BLOCK];
        for first in (0..pixels).step_by(BLOCK) {
            let count = BLOCK.min(pixels - first);
            let (weights, d_weights) = (&mut weights[..count * pixels], &mut d_weights[..count * pixels]);
            let rows = &mut rows[..count * size];
            let (q, d_o) = (at.matrix(q, job, first), at.matrix(d_o, job, first));
            multiply(q, count, &keys_turned, false, weights, pixels);
            exponentials(cpu.isa(), weights, pixels, scale, &mut inverse_sums);
            multiply(d_o, count, &values_turned, false, d_weights, pixels);
            softmax_grad(cpu.isa(), weights, d_weights, pixels, scale, &inverse_sums);

            multiply(Matrix::rows(d_weights, pixels), count, &keys, false, rows, size);
            // SAFETY: each job stores its own head's rows.
            unsafe { at.store(&out_q, job, first, rows, |_| T::ONE) };
            let add = first > 0;
            let d_o = Packed::new(cpu, d_o, count, size);
            multiply(Matrix::rows(weights, pixels).transposed(), pixels, &d_o, add, &mut dv, size);
            let q = Packed::new(cpu, q, count, size);
            multiply(Matrix::rows(d_weights, pixels).transposed(), pixels, &q, add, &mut dk, size);
        }
        // SAFETY: each job stores its own head's rows.
        unsafe {
            at.store(&out_k, job, 0, &dk, |_| T::ONE);
            at.store(&out_v, job, 0, &dv, |_| T::ONE);
        }
    });
    Ok([dq, dk, dv])
}

/// Scales s and keeps the larger in `lane`.
#[inline(always)]
fn scale_and_max<T: Element>(scale: T, lane: &mut T, s: &mut T) {
    *s = scale * *s;
    *lane = if *s > *lane { *s } else { *lane };
}

/// s becomes `exp(s − max)` and is added to `lane`.
#[inline(always)]
fn exponential<T: Element>(max: T, lane: &mut T, s: &mut T) {
    *s = (*s - max).exp();
    *lane += *s;
}

/// w is normalised, and w·dw is added to `lane`.
#[inline(always)]
fn normalise_and_dot<T: Element>(inverse_sum: T, lane: &mut T, w: &mut T, dw: T) {
    *w *= inverse_sum;
    *lane = w.fma(dw, *lane);
}

simd! {
    /// Rows of scores become `exp(scale·s − max)`; `inverse_sums` gets 1 over each row's sum.
    fn exponentials[T: Element](isa, scores: &mut [T], columns: usize, scale: T, inverse_sums: &mut [T]) {
        for (row, inverse_sum) in scores.chunks_exact_mut(columns).zip(inverse_sums) {
            let mut lanes = [scale * row[0]; LANES];
            let (whole, rest) = row.as_chunks_mut::<LANES>();
            for s in &mut *whole {
                for i in 0..LANES {
                    scale_and_max(scale, &mut lanes[i], &mut s[i]);
                }
            }
            for (lane, s) in lanes.iter_mut().zip(&mut *rest) {
                scale_and_max(scale, lane, s);
            }
            let max = lanes.iter().fold(lanes[0], |max, &lane| if lane > max { lane } else { max });

            let mut lanes = [T::ZERO; LANES];
            for s in whole {
                for i in 0..LANES {
                    exponential(max, &mut lanes[i], &mut s[i]);
                }
            }
            for (lane, s) in lanes.iter_mut().zip(rest) {
                exponential(max, lane, s);
            }
            *inverse_sum = T::ONE / lanes.iter().copied().sum::<T>();
        }
    }
}

simd! {
    /// Normalises rows of weights, and turns their gradients into those of the scores, scaled.
    fn softmax_grad[T: Element](
        isa,
        weights: &mut [T],
        d_weights: &mut [T],
        columns: usize,
        scale: T,
        inverse_sums: &[T],
    ) {
        let rows = weights.chunks_exact_mut(columns).zip(d_weights.chunks_exact_mut(columns));
        for ((weights, d_weights), &inverse_sum) in rows.zip(inverse_sums) {
            let mut lanes = [T::ZERO; LANES];
            let (whole, rest) = weights.as_chunks_mut::<LANES>();
            let (d_whole, d_rest) = d_weights.as_chunks::<LANES>();
            for (w, dw) in whole.iter_mut().zip(d_whole) {
                for i in 0..LANES {
                    normalise_and_dot(inverse_sum, &mut lanes[i], &mut w[i], dw[i]);
                }
            }
            for ((lane, w), &dw) in lanes.iter_mut().zip(rest).zip(d_rest) {
                normalise_and_dot(inverse_sum, lane, w, dw);
            }
            let mean = lanes.iter().copied().sum::<T>();
            for (dw, &w) in d_weights.iter_mut().zip(&*weights) {
                *dw = w * (*dw - mean) * scale;
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
