//! Weights in the order in which the tiles read them: panels of one or two vectors of columns.

use std::sync::Arc;

use ddpm_tensor::cpu::CpuBuffer;
use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, View};

use super::tile::Micro;
use crate::conv::cpu::made;

/// A right operand `[K, columns]`, cut into panels `[K, width]` with zeros to the right.
pub(crate) struct Packed<T: Element> {
    values: Arc<CpuBuffer<T>>,
    depth: usize,
    columns: usize,
    lanes: usize,
}

/// Some columns of a packed operand.
#[derive(Clone, Copy)]
pub(crate) struct Panel<'a, T> {
    pub(crate) values: &'a [T],
    /// First column.
    pub(crate) first: usize,
    /// Columns that count.
    pub(crate) columns: usize,
    /// Vectors, 1 or 2.
    pub(crate) vectors: usize,
    /// Columns with padding.
    pub(crate) width: usize,
}

impl<T: Element> Packed<T> {
    /// Packs weights as `depth` by `columns`: `at(weights, k, column)`; `maker` names the order.
    pub(crate) fn new(
        cpu: &Cpu<T>,
        micro: Micro,
        w: View<'_, Cpu<T>>,
        maker: &'static str,
        (depth, columns): (usize, usize),
        at: impl Fn(&[T], usize, usize) -> T + Send + Sync,
    ) -> Self {
        let lanes = micro.lanes;
        let values = made(w, maker, lanes, || {
            let w = w.as_slice();
            let mut values = cpu.scratch(depth * columns.next_multiple_of(lanes));
            let out = DisjointMut::new(&mut values);
            let panels = columns.div_ceil(2 * lanes);
            cpu.parallel(panels, depth * columns, |panel| {
                let first = panel * 2 * lanes;
                let count = (columns - first).min(2 * lanes);
                let width = count.next_multiple_of(lanes);
                // SAFETY: panels lie one after the other.
                let out = unsafe { out.part(first * depth..first * depth + width * depth) };
                for (k, row) in out.chunks_exact_mut(width).enumerate() {
                    for (j, value) in row.iter_mut().enumerate() {
                        *value = if j < count { at(w, k, first + j) } else { T::ZERO };
                    }
                }
            });
            values
        });
        Self { values, depth, columns, lanes }
    }

    pub(crate) fn panels(&self) -> impl Iterator<Item = Panel<'_, T>> {
        (0..self.columns).step_by(2 * self.lanes).map(|first| {
            let columns = (self.columns - first).min(2 * self.lanes);
            let width = columns.next_multiple_of(self.lanes);
            let values = &self.values[first * self.depth..][..width * self.depth];
            Panel { values, first, columns, vectors: width / self.lanes, width }
        })
    }
}
