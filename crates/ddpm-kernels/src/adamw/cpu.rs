//! AdamW, EMA and the gradients' norm on the CPU.

use ddpm_tensor::cpu::CpuBuffer;
use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, simd};

use super::AdamWStep;
use crate::KernelError;
use crate::error::expect;

/// Elements of one job.
const CHUNK: usize = 32_768;
/// Independent sums within a chunk, added in order at its end.
const LANES: usize = 16;

/// [`Backend::squared_norm`](crate::Backend::squared_norm).
pub(crate) fn squared_norm<T: Element>(cpu: &Cpu<T>, x: &CpuBuffer<T>) -> f64 {
    let mut sums = vec![0.0; x.len().div_ceil(CHUNK)];
    let parts = DisjointMut::new(&mut sums);
    cpu.parallel(x.len().div_ceil(CHUNK), x.len() / 8, |job| {
        // SAFETY: each job has a sum of its own.
        let sum = unsafe { parts.part(job..job + 1) };
        sum[0] = sum_of_squares(cpu.isa(), &x[job * CHUNK..x.len().min((job + 1) * CHUNK)]);
    });
    sums.iter().fold(0.0, |sum, s| sum + s) // `sum()` of nothing is −0
}

simd! {
    fn sum_of_squares[T: Element](isa, x: &[T]) -> f64 {
        let mut lanes = [0.0; LANES];
        let (whole, rest) = x.as_chunks::<LANES>();
        for x in whole {
            for (lane, x) in lanes.iter_mut().zip(x) {
                *lane = x.to_f64().mul_add(x.to_f64(), *lane);
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane = x.to_f64().mul_add(x.to_f64(), *lane);
        }
        lanes.iter().sum()
    }
}

/// [`AdamWStep`] as the elements use it, rounded once from f64.
#[derive(Clone, Copy)]
pub(super) struct Coefficients<T> {
    clip: T,
    /// 1 − β₁: moments and EMA are moved by a share of the difference, so that they rest where their target rests
    /// (β₂ and 1 − β₂ each rounded to f32 need not add up to 1).
    share_1: T,
    share_2: T,
    share_ema: T,
    /// 1 − lr·weight_decay.
    keep: T,
    /// −lr / correction_1.
    step: T,
    /// 1 / √correction_2.
    per_root: T,
    eps: T,
}

impl<T: Element> From<&AdamWStep> for Coefficients<T> {
    fn from(s: &AdamWStep) -> Self {
        Self {
            clip: T::of(s.clip),
            share_1: T::of(1.0 - s.beta_1),
            share_2: T::of(1.0 - s.beta_2),
            share_ema: T::of(1.0 - s.ema_decay),
            keep: T::of(1.0 - s.lr * s.weight_decay),
            step: T::of(-s.lr / s.correction_1),
            per_root: T::of(1.0 / s.correction_2.sqrt()),
            eps: T::of(s.eps),
        }
    }
}

impl<T> Coefficients<T> {
    /// The fields in the order in which they are declared, here and in `kernels/adamw.cu`.
    pub(super) fn fields(self) -> [T; 8] {
        let Self { clip, share_1, share_2, share_ema, keep, step, per_root, eps } = self;
        [clip, share_1, share_2, share_ema, keep, step, per_root, eps]
    }
}

/// [`Backend::adamw`](crate::Backend::adamw).
pub(crate) fn adamw<T: Element>(
    cpu: &Cpu<T>,
    step: &AdamWStep,
    parameters: &mut CpuBuffer<T>,
    grads: &mut CpuBuffer<T>,
    m: &mut CpuBuffer<T>,
    v: &mut CpuBuffer<T>,
    ema: &mut CpuBuffer<T>,
) -> Result<(), KernelError> {
    let len = parameters.len();
    for (operand, got) in [("grads", grads.len()), ("m", m.len()), ("v", v.len()), ("ema", ema.len())] {
        expect("adamw", operand, [len], [got].into())?;
    }
    let c = Coefficients::from(step);
    let [parameters, grads, m, v, ema] = [parameters, grads, m, v, ema].map(|b| DisjointMut::new(b));
    cpu.parallel(len.div_ceil(CHUNK), len, |job| {
        let own = job * CHUNK..len.min((job + 1) * CHUNK);
        // SAFETY: each job has a chunk of its own in each buffer.
        let [parameters, grads, m, v, ema] =
            unsafe { [&parameters, &grads, &m, &v, &ema].map(|b| b.part(own.clone())) };
        update(cpu.isa(), c, parameters, grads, m, v, ema);
    });
    Ok(())
}

simd! {
    /// One step for a chunk; PyTorch's order: the decay first, then the step.
    fn update[T: Element](
        isa,
        c: Coefficients<T>,
        parameters: &mut [T],
        grads: &mut [T],
        m: &mut [T],
        v: &mut [T],
        ema: &mut [T],
    ) {
        let moments = m.iter_mut().zip(v);
        for (((p, grad), (m, v)), ema) in parameters.iter_mut().zip(grads).zip(moments).zip(ema) {
            let g = c.clip * *grad;
            *grad = T::ZERO;
            *m = c.share_1.fma(g - *m, *m);
            *v = c.share_2.fma(g * g - *v, *v);
            let root = v.sqrt().fma(c.per_root, c.eps);
            *p = c.step.fma(*m / root, c.keep * *p);
            *ema = c.share_ema.fma(*p - *ema, *ema);
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
