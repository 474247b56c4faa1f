//! Transformed weights in the order in which the tiles read them.

use ddpm_tensor::cpu::CpuBuffer;
use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element};

use super::plane;
use super::transform::{self, POINTS};
use crate::conv::cpu::Sizes;
use crate::conv::cpu::direct::pack::Panel;
use crate::conv::cpu::direct::tile::Micro;

/// Rows of a panel that one task transforms.
const ROWS: usize = 32;

/// U = G g Gᵀ: for each panel of columns and each of the 36 points `[depth, width]`.
pub(super) struct Weights<T: Element> {
    values: CpuBuffer<T>,
    depth: usize,
    /// Columns in all.
    pub(super) columns: usize,
    lanes: usize,
}

impl<T: Element> Weights<T> {
    /// For the result: from C rows to O columns.
    pub(super) fn forward(cpu: &Cpu<T>, micro: Micro, s: &Sizes, w: &[T]) -> Self {
        Self::new(cpu, micro, (s.c, s.o), |k, first, columns, u, plane, width| {
            let g = &w[k.start * s.o + first..];
            transform::weights(cpu.isa(), g, (s.c * s.o, s.o), false, (k.len(), columns), u, plane, width);
        })
    }

    /// For the gradient of the operand: from O rows to C columns, the taps turned around.
    pub(super) fn input_grad(cpu: &Cpu<T>, micro: Micro, s: &Sizes, w: &[T]) -> Self {
        Self::new(cpu, micro, (s.o, s.c), |k, first, columns, u, plane, width| {
            // o by c, as the columns must follow each other
            let tap = k.len() * columns;
            let mut turned = cpu.scratch(9 * tap);
            for (of_tap, to) in turned.chunks_exact_mut(tap).enumerate() {
                for c in 0..columns {
                    let from = &w[(of_tap * s.c + first + c) * s.o..][k.clone()];
                    for (to, &from) in to[c..].iter_mut().step_by(columns).zip(from) {
                        *to = from;
                    }
                }
            }
            transform::weights(cpu.isa(), &turned, (tap, columns), true, (k.len(), columns), u, plane, width);
        })
    }

    /// `fill(rows, first column, columns, u, plane, width)` transforms some rows of a panel.
    fn new(
        cpu: &Cpu<T>,
        micro: Micro,
        (depth, columns): (usize, usize),
        fill: impl Fn(std::ops::Range<usize>, usize, usize, &mut [T], usize, usize) + Send + Sync,
    ) -> Self {
        let lanes = micro.lanes;
        let this = Self { values: cpu.scratch(0), depth, columns, lanes };
        let mut values = cpu.scratch(this.start(this.panels()));
        let out = DisjointMut::new(&mut values);
        cpu.parallel(this.panels(), depth * columns * 2, |panel| {
            let (first, count, width) = this.columns_of(panel);
            // SAFETY: panels lie one after the other.
            let u = unsafe { out.part(this.start(panel)..this.start(panel + 1)) };
            for from in (0..depth).step_by(ROWS) {
                let rows = from..(from + ROWS).min(depth);
                fill(rows, first, count, &mut u[from * width..], plane(depth * width), width);
            }
        });
        Self { values, ..this }
    }

    /// First column, columns that count and columns with padding of a panel.
    fn columns_of(&self, panel: usize) -> (usize, usize, usize) {
        let first = panel * 2 * self.lanes;
        let count = (self.columns - first).min(2 * self.lanes);
        (first, count, count.next_multiple_of(self.lanes))
    }

    /// Where a panel begins.
    fn start(&self, panel: usize) -> usize {
        panel * POINTS * plane(self.depth * 2 * self.lanes)
    }

    pub(super) fn panels(&self) -> usize {
        self.columns.div_ceil(2 * self.lanes)
    }

    /// One point's part of a panel: `index` counts the points of one panel after the other.
    pub(super) fn panel(&self, index: usize) -> Panel<'_, T> {
        let (panel, point) = (index / POINTS, index % POINTS);
        let (first, columns, width) = self.columns_of(panel);
        let values = &self.values[self.start(panel) + point * plane(self.depth * width)..][..self.depth * width];
        Panel { values, first, columns, vectors: width / self.lanes, width }
    }
}
