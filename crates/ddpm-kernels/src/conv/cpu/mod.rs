//! Convolutions on the CPU: the operand is made row by row beside the zeros that surround it, and the tiles read it there
//! directly, tap by tap, so that nothing is lowered to a matrix.

mod forward;
mod input_grad;
mod pack;
pub(crate) mod tile;
mod weight_grad;

pub(crate) use forward::conv;
pub(crate) use input_grad::input_grad;
pub(crate) use weight_grad::weight_grad;

use ddpm_tensor::{Cpu, View};

use super::Geometry;
use crate::error::expect;
use crate::{KernelError, Operand};

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
    fn new<T: ddpm_tensor::Element>(
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
