//! Transformed weights, panel by panel, in the order in which the tiles read them.

use std::ops::Range;
use std::sync::Arc;

use ddpm_tensor::cpu::CpuBuffer;
use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, View, simd};

use super::plane;
use super::transform::{self, POINTS};
use crate::conv::cpu::direct::pack::Panel;
use crate::conv::cpu::direct::tile::Micro;
use crate::conv::cpu::{Sizes, made};

/// Rows that are transposed at a time.
const ROWS: usize = 32;

/// The weights of a convolution, `depth` rows of `columns`, of which panels are transformed: U = G g Gᵀ.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a, T: Element> {
    /// `[3, 3, C, O]`.
    view: View<'a, Cpu<T>>,
    w: &'a [T],
    c: usize,
    o: usize,
    /// Whether rows are O and columns C, and the taps are turned around: for the gradient of the operand.
    turned: bool,
    pub(super) micro: Micro,
}

/// The columns of a panel.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    pub(super) first: usize,
    pub(super) count: usize,
    /// With padding.
    pub(super) width: usize,
}

impl<'a, T: Element> Weights<'a, T> {
    pub(super) fn new(micro: Micro, s: &Sizes, view: View<'a, Cpu<T>>, turned: bool) -> Self {
        Self { view, w: view.as_slice(), c: s.c, o: s.o, turned, micro }
    }

    /// Rows and columns.
    pub(super) fn size(&self) -> (usize, usize) {
        if self.turned { (self.o, self.c) } else { (self.c, self.o) }
    }

    pub(super) fn panels(&self) -> usize {
        self.size().1.div_ceil(2 * self.micro.lanes)
    }

    pub(super) fn columns(&self, panel: usize) -> Columns {
        let first = panel * 2 * self.micro.lanes;
        let count = (self.size().1 - first).min(2 * self.micro.lanes);
        Columns { first, count, width: count.next_multiple_of(self.micro.lanes) }
    }

    /// Elements of a transformed panel of so many rows.
    pub(super) fn panel_len(&self, rows: usize) -> usize {
        POINTS * plane(rows * 2 * self.micro.lanes)
    }

    /// All panels, transformed; once while the weights are frozen.
    pub(super) fn packed(&self, cpu: &Cpu<T>) -> Arc<CpuBuffer<T>> {
        let maker = if self.turned { "winograd, turned" } else { "winograd" };
        made(self.view, maker, self.micro.lanes, || {
            let (rows, columns) = self.size();
            let len = self.panel_len(rows);
            let mut values = cpu.scratch(self.panels() * len);
            let out = DisjointMut::new(&mut values);
            cpu.parallel(self.panels(), rows * columns * 2, |panel| {
                // SAFETY: panels lie one after the other.
                let u = unsafe { out.part(panel * len..(panel + 1) * len) };
                self.transform(cpu, panel, 0..rows, u);
            });
            values
        })
    }

    /// Whether [`packed`](Self::packed) keeps them.
    pub(super) fn are_kept(&self) -> bool {
        self.view.buffer().is_frozen()
    }

    /// Transforms some rows of a panel: `u` as [`point`] reads it.
    pub(super) fn transform(&self, cpu: &Cpu<T>, panel: usize, rows: Range<usize>, u: &mut [T]) {
        let Columns { first, count, width } = self.columns(panel);
        let (c, o, isa) = (self.c, self.o, cpu.isa());
        let plane = plane(rows.len() * width);
        if !self.turned {
            let g = &self.w[rows.start * o + first..];
            transform::weights(isa, g, (c * o, o), false, (rows.len(), count), (u, plane, width));
            return;
        }
        // O by C, as the columns must follow each other
        let mut turned = cpu.scratch(9 * ROWS * count);
        for from in rows.clone().step_by(ROWS) {
            let number = ROWS.min(rows.end - from);
            for (tap, to) in turned.chunks_exact_mut(ROWS * count).enumerate() {
                transpose(isa, &self.w[(tap * c + first) * o + from..], o, (count, number), to);
            }
            let u = &mut u[(from - rows.start) * width..];
            transform::weights(isa, &turned, (ROWS * count, count), true, (number, count), (u, plane, width));
        }
    }
}

/// One point of a transformed panel of so many rows, and what follows it in memory.
pub(super) fn point<T>(u: &[T], c: Columns, lanes: usize, rows: usize, point: usize) -> Panel<'_, T> {
    let values = &u[point * plane(rows * c.width)..][..rows * c.width];
    Panel { values, first: c.first, columns: c.count, vectors: c.width / lanes, width: c.width }
}

simd! {
    /// `to[j·rows + i] = from[i·stride + j]` for `size` = rows and columns.
    fn transpose[T: Element](isa, from: &[T], stride: usize, size: (usize, usize), to: &mut [T]) {
        // squares of this side become shuffles of vectors
        const SIDE: usize = 4;
        let (rows, columns) = size;
        for i in (0..rows).step_by(SIDE) {
            for j in (0..columns).step_by(SIDE) {
                if i + SIDE <= rows && j + SIDE <= columns {
                    let mut square = [[T::ZERO; SIDE]; SIDE];
                    for (k, row) in square.iter_mut().enumerate() {
                        row.copy_from_slice(&from[(i + k) * stride + j..][..SIDE]);
                    }
                    for l in 0..SIDE {
                        let column = square.map(|row| row[l]);
                        to[(j + l) * rows + i..][..SIDE].copy_from_slice(&column);
                    }
                } else {
                    for i in i..rows.min(i + SIDE) {
                        for j in j..columns.min(j + SIDE) {
                            to[j * rows + i] = from[i * stride + j];
                        }
                    }
                }
            }
        }
    }
}
