//! Losses on the CPU.

use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, Tensor, View, simd};

use super::{LossGrad, LossKind, check};
use crate::KernelError;

/// Elements of an image whose losses are summed from zero; the sums of such chunks are added in order.
const CHUNK: usize = 4096;
/// Independent sums within a chunk, added in order at its end.
const LANES: usize = 16;

/// Sum of the loss, then sum of d², over a chunk.
type Sums = [f64; 2];

/// [`Backend::loss`](crate::Backend::loss).
pub(crate) fn loss<T: Element>(
    cpu: &Cpu<T>,
    kind: LossKind,
    output: View<'_, Cpu<T>>,
    target: View<'_, Cpu<T>>,
    weights: &[f32],
    scale: f64,
) -> Result<LossGrad<Cpu<T>>, KernelError> {
    check(kind, output.shape(), target.shape(), weights)?;
    let [n, h, w, c] = output.shape().nhwc();
    let size = h * w * c;
    let chunks = size.div_ceil(CHUNK);
    let mut sums: Vec<Sums> = vec![[0.0; 2]; n * chunks];
    let mut d_output = Tensor::alloc(cpu, output.shape())?;
    let (output, target) = (output.as_slice(), target.as_slice());
    {
        let sums = DisjointMut::new(&mut sums);
        let d_output = DisjointMut::new(d_output.as_mut_slice());
        cpu.parallel(n * chunks, output.len() / 2, |job| {
            let (image, chunk) = (job / chunks, job % chunks);
            let own = image * size + chunk * CHUNK..image * size + size.min((chunk + 1) * CHUNK);
            // SAFETY: each job has a chunk of its own, and one pair of sums.
            let (d_output, sums) = unsafe { (d_output.part(own.clone()), sums.part(job..job + 1)) };
            let (output, target) = (&output[own.clone()], &target[own]);
            let factor = weights[image] as f64 * scale;
            sums[0] = match kind {
                LossKind::L2 => l2(cpu.isa(), output, target, T::of(2.0 * factor), d_output),
                LossKind::L1 => l1(cpu.isa(), output, target, T::of(factor), d_output),
                LossKind::Huber { delta } => {
                    huber(cpu.isa(), output, target, T::of_f32(delta), T::of(factor), d_output)
                }
            };
        });
    }
    let mean = |which: usize| {
        let of_image = |i: usize| sums[i * chunks..(i + 1) * chunks].iter().map(|s| s[which]).sum::<f64>();
        (0..n).map(|i| of_image(i) / size as f64).collect()
    };
    Ok(LossGrad { loss: mean(0), mse: mean(1), d_output })
}

/// Writes the gradient and returns the sums of a chunk; `of` gives (loss, slope) of a difference.
#[inline(always)]
fn chunk<T: Element>(output: &[T], target: &[T], factor: T, d_output: &mut [T], of: impl Fn(T) -> (f64, T)) -> Sums {
    let mut loss = [0.0; LANES];
    let mut mse = [0.0; LANES];
    let whole = output.len() / LANES * LANES;
    // the same for whole vectors and for the rest: element i goes to lane i mod LANES
    for first in (0..whole).step_by(LANES) {
        let output: &[T] = &output[first..first + LANES];
        let (target, d_output) = (&target[first..first + LANES], &mut d_output[first..first + LANES]);
        for i in 0..LANES {
            let d = output[i] - target[i];
            let (value, slope) = of(d);
            d_output[i] = slope * factor;
            loss[i] += value;
            mse[i] += d.to_f64() * d.to_f64();
        }
    }
    for i in whole..output.len() {
        let d = output[i] - target[i];
        let (value, slope) = of(d);
        d_output[i] = slope * factor;
        loss[i - whole] += value;
        mse[i - whole] += d.to_f64() * d.to_f64();
    }
    [loss.iter().sum(), mse.iter().sum()]
}

simd! {
    /// d²; the 2 of its slope is in `twice_factor`.
    fn l2[T: Element](isa, output: &[T], target: &[T], twice_factor: T, d_output: &mut [T]) -> Sums {
        chunk(output, target, twice_factor, d_output, #[inline(always)] |d| (d.to_f64() * d.to_f64(), d))
    }
}

simd! {
    fn l1[T: Element](isa, output: &[T], target: &[T], factor: T, d_output: &mut [T]) -> Sums {
        chunk(output, target, factor, d_output, #[inline(always)] |d| {
            // a NaN stays one, in the slope too
            let slope = if d > T::ZERO { T::ONE } else { d * T::ZERO };
            let slope = if d < T::ZERO { -T::ONE } else { slope };
            (d.abs().to_f64(), slope)
        })
    }
}

simd! {
    /// With s = d clipped to ±delta the loss is `s·(d − s/2)` and its slope is s.
    fn huber[T: Element](isa, output: &[T], target: &[T], delta: T, factor: T, d_output: &mut [T]) -> Sums {
        chunk(output, target, factor, d_output, #[inline(always)] |d| {
            let slope = if d > delta { delta } else { d };
            let slope = if slope < -delta { -delta } else { slope };
            (slope.to_f64() * (d.to_f64() - 0.5 * slope.to_f64()), slope)
        })
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
