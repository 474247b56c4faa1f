//! Convolutions on the CPU: sizes are checked here and the engine is chosen; an engine makes its operand row by row beside
//! the zeros that surround it.

mod bf16;
pub(crate) mod direct;
pub(in crate::conv) mod engine;
mod store;
mod winograd;

use std::ops::Range;
use std::sync::Arc;

use ddpm_tensor::cpu::{CpuBuffer, Form};
use ddpm_tensor::{Cpu, Element, Shape, View};

use self::engine::{Direction, Engine};
use super::Geometry;
use crate::error::expect;
use crate::{Epilogue, KernelError, Operand, Output, Pulled};

pub(crate) fn conv<T: Element>(
    cpu: &Cpu<T>,
    x: &Operand<'_, Cpu<T>>,
    w: View<'_, Cpu<T>>,
    g: Geometry,
    e: &Epilogue<'_, Cpu<T>>,
) -> Result<Output<Cpu<T>>, KernelError> {
    let s = Sizes::new("conv", x, Some(w), w.shape().nhwc()[3], g)?;
    e.check("conv", [s.n, s.out_h, s.out_w, s.o])?;
    match Engine::of(cpu, &s, Direction::Forward) {
        Engine::Direct => direct::conv(cpu, &s, x, w, e),
        Engine::Tiles(tiles) => bf16::conv(tiles, cpu, &s, x, w, e),
        Engine::Winograd => winograd::conv(cpu, &s, x, w, e),
    }
}

pub(crate) fn input_grad<T: Element>(
    cpu: &Cpu<T>,
    dy: View<'_, Cpu<T>>,
    w: View<'_, Cpu<T>>,
    g: Geometry,
    x: &Operand<'_, Cpu<T>>,
) -> Result<Pulled<Cpu<T>>, KernelError> {
    let s = Sizes::new("conv_input_grad", x, Some(w), w.shape().nhwc()[3], g)?;
    expect("conv_input_grad", "dy", [s.n, s.out_h, s.out_w, s.o], dy.shape())?;
    match Engine::of(cpu, &s, Direction::InputGrad) {
        Engine::Direct => direct::input_grad(cpu, &s, dy, w, x),
        Engine::Tiles(tiles) => bf16::input_grad(tiles, cpu, &s, dy, w, x),
        Engine::Winograd => winograd::input_grad(cpu, &s, dy, w, x),
    }
}

/// Adds `dw[tap,c,o] = Σ_{n,p} x[n, s·p + tap − pad, c] · dy[n,p,o]` to `grads[dw]`, in groups of 16 images.
pub(crate) fn weight_grad<T: Element>(
    cpu: &Cpu<T>,
    dy: View<'_, Cpu<T>>,
    x: &Operand<'_, Cpu<T>>,
    g: Geometry,
    grads: &mut CpuBuffer<T>,
    dw: Range<usize>,
) -> Result<(), KernelError> {
    const OPERATION: &str = "conv_weight_grad";
    let s = Sizes::new(OPERATION, x, None, dy.shape().nhwc()[3], g)?;
    expect(OPERATION, "dy", [s.n, s.out_h, s.out_w, s.o], dy.shape())?;
    let len = g.kernel * g.kernel * s.c * s.o;
    expect(OPERATION, "the range of the weight's gradient", [len], Shape::from([dw.len()]))?;
    match Engine::of(cpu, &s, Direction::WeightGrad) {
        Engine::Direct => direct::weight_grad(cpu, &s, dy, x, &mut grads[dw]),
        Engine::Tiles(tiles) => bf16::weight_grad(tiles, cpu, &s, dy, x, &mut grads[dw]),
        Engine::Winograd => winograd::weight_grad(cpu, &s, dy, x, &mut grads[dw]),
    }
    Ok(())
}

/// What an engine makes of a convolution's weights; once while they are frozen. `unit` is what it depends on besides them.
fn made<T: Element>(
    w: View<'_, Cpu<T>>,
    maker: &'static str,
    unit: usize,
    make: impl FnOnce() -> CpuBuffer<T>,
) -> Arc<CpuBuffer<T>> {
    let [kernel, _, c, o] = w.shape().nhwc();
    w.buffer().made_of(w.range(), Form { maker, sizes: [kernel, c, o, unit] }, make)
}

/// Multiply-adds of a task at least, where the image has as many.
const TASK_WORK: usize = 1 << 24;
/// Multiply-adds that a thread does in a nanosecond, roughly: for the choice of threads only.
const WORK_PER_NS: usize = 32;

/// Sizes of one convolution, checked.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    out_h: usize,
    out_w: usize,
    o: usize,
    g: Geometry,
}

impl Sizes {
    fn new<T: Element>(
        operation: &'static str,
        x: &Operand<'_, Cpu<T>>,
        w: Option<View<'_, Cpu<T>>>,
        o: usize,
        g: Geometry,
    ) -> Result<Self, KernelError> {
        x.check(operation)?;
        let [n, h, width, c] = x.size();
        if let Some(w) = w {
            expect(operation, "the weight", [g.kernel, g.kernel, c, o], w.shape())?;
        }
        let (out_h, out_w) = g.output(h, width)?;
        Ok(Self { n, h, w: width, c, out_h, out_w, o, g })
    }

    /// Multiply-adds of one row of the result.
    fn row_work(&self) -> usize {
        self.out_w * self.o * self.c * self.g.kernel * self.g.kernel
    }

    /// Rough time of the whole, for the choice of threads.
    fn nanoseconds(&self) -> usize {
        self.n * self.out_h * self.row_work() / WORK_PER_NS
    }

    /// Rows of the result in a task: a matter of one image's shape.
    fn task_rows(&self) -> usize {
        TASK_WORK.div_ceil(self.row_work().max(1)).clamp(1, self.out_h)
    }
}

/// Which pixels of dy reach pixels `first, first + stride, …` of one axis of the operand: (tap, dy's position for the first).
fn reached(g: Geometry, first: usize) -> impl Iterator<Item = (usize, isize)> {
    (0..g.kernel).filter_map(move |tap| {
        // operand = stride·dy + tap − before
        let offset = first as isize + g.before() as isize - tap as isize;
        (offset.rem_euclid(g.stride as isize) == 0).then(|| (tap, offset.div_euclid(g.stride as isize)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::Padding;

    #[test]
    fn taps_reach_the_pixels_that_the_forward_pass_reads() {
        for g in [Geometry::ONE, Geometry::THREE, Geometry::down(Padding::Same), Geometry::down(Padding::End)] {
            for out in 0..5isize {
                for tap in 0..g.kernel {
                    let read = out * g.stride as isize + tap as isize - g.before() as isize;
                    if let Ok(read) = usize::try_from(read) {
                        assert!(
                            reached(g, read).any(|found| found == (tap, out)),
                            "{g:?}: {out} reads {read} by tap {tap}"
                        );
                    }
                }
            }
        }
    }
}
