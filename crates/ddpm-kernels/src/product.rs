//! Products of matrices in memory of any strides, `C = A·B` or `C += A·B`.
//!
//! Each element of C is one chain of multiply-adds over k, in order and from zero; each [`CHAIN`] steps begin another
//! chain, and chains are added in order. So the bits depend on k alone: not on m, n, the instruction set, or on what else
//! is computed with them. The innermost loops are those of the convolutions.

use ddpm_tensor::cpu::CpuBuffer;
use ddpm_tensor::{Cpu, Element};

use crate::conv::cpu::direct::tile::{CHAIN, Micro, Segment, Tile};

/// Most elements of a tile: 12 rows of two vectors of 16.
const TILE: usize = 12 * 32;

/// A matrix in memory: element (i, j) is `data[i·row + j·column]`, and either `row` or `column` is 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    data: &'a [T],
    row: usize,
    column: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Rows that begin `row` elements after each other.
    pub(crate) fn rows(data: &'a [T], row: usize) -> Self {
        Self { data, row, column: 1 }
    }

    /// The transposed matrix, in the same memory.
    pub(crate) fn transposed(self) -> Self {
        Self { data: self.data, row: self.column, column: self.row }
    }

    /// Panics unless rows and columns up to `rows` and `columns` are in `data`: the kernels read without asking.
    fn assert_holds(&self, rows: usize, columns: usize) {
        if rows > 0 && columns > 0 {
            let last = (rows - 1) * self.row + (columns - 1) * self.column;
            assert!(last < self.data.len(), "a matrix of {rows}x{columns} ends after its memory");
        }
    }
}

/// A right operand, in the order in which the kernels read it: for each block of k and each panel of columns, row after
/// row; missing columns of the last panel are zeros.
#[derive(Debug)]
pub(crate) struct Packed<T: Element> {
    panels: CpuBuffer<T>,
    k: usize,
    n: usize,
    micro: Micro,
}

impl<T: Element> Packed<T> {
    /// Packs the first `k` rows and `n` columns of `b`.
    pub(crate) fn new(cpu: &Cpu<T>, b: Matrix<'_, T>, k: usize, n: usize) -> Self {
        b.assert_holds(k, n);
        let micro = Micro::new::<T>(cpu.isa());
        let width = 2 * micro.lanes;
        let mut panels = cpu.scratch(k * n.next_multiple_of(width));
        let mut rest = &mut panels[..];
        for k_first in (0..k).step_by(CHAIN) {
            let block = CHAIN.min(k - k_first);
            for first in (0..n).step_by(width) {
                let panel;
                (panel, rest) = rest.split_at_mut(block * width);
                pack_panel(b, k_first, first..n.min(first + width), width, panel);
            }
        }
        Self { panels, k, n, micro }
    }
}

fn pack_panel<T: Element>(
    b: Matrix<'_, T>,
    k_first: usize,
    columns: std::ops::Range<usize>,
    width: usize,
    panel: &mut [T],
) {
    if columns.len() < width {
        panel.fill(T::ZERO);
    }
    if b.column == 1 {
        for (k, to) in panel.chunks_exact_mut(width).enumerate() {
            let from = (k_first + k) * b.row + columns.start;
            to[..columns.len()].copy_from_slice(&b.data[from..from + columns.len()]);
        }
    } else {
        for (j, column) in columns.enumerate() {
            let from = b.data[k_first * b.row + column * b.column..].iter().step_by(b.row.max(1));
            for (to, &from) in panel[j..].iter_mut().step_by(width).zip(from) {
                *to = from;
            }
        }
    }
}

/// `C = A·B`, or `C += A·B` with `add`: A has `m` rows and as many columns as B has rows; row i of C is
/// `c[i·c_row..][..n]`.
///
/// # Panics
/// When A's or C's memory is too short: that is a mistake of the caller, not of a user.
pub(crate) fn multiply<T: Element>(a: Matrix<'_, T>, m: usize, b: &Packed<T>, add: bool, c: &mut [T], c_row: usize) {
    a.assert_holds(m, b.k);
    Matrix::rows(c, c_row).assert_holds(m, b.n);
    let lanes = b.micro.lanes;
    if b.k == 0 && !add && b.n > 0 {
        c.chunks_mut(c_row).take(m).for_each(|row| row[..b.n].fill(T::ZERO));
    }
    let mut spare = [T::ZERO; TILE];
    let mut rest = &b.panels[..];
    for k_first in (0..b.k).step_by(CHAIN) {
        let chain = [Segment { a: k_first, b: 0, len: CHAIN.min(b.k - k_first) }];
        let add = add || k_first > 0;
        for first in (0..b.n).step_by(2 * lanes) {
            let panel;
            (panel, rest) = rest.split_at(chain[0].len * 2 * lanes);
            let columns = (b.n - first).min(2 * lanes);
            let vectors = columns.div_ceil(lanes);
            // whole vectors are stored: past a narrow panel they would overwrite what lies beside C
            let narrow = columns < vectors * lanes;
            for (i, rows) in b.micro.heights(m) {
                let (out, out_row) = if narrow {
                    (spare.as_mut_ptr(), vectors * lanes)
                } else {
                    ((&raw mut c[i * c_row + first]), c_row)
                };
                let (a, a_row, a_k) = (&raw const a.data[i * a.row], a.row, a.column);
                let tile = Tile { a, a_row, a_k, b: panel.as_ptr(), b_row: 2 * lanes, out, out_row };
                // SAFETY: A's m rows and k columns and C's m rows and n columns are in their slices, as asserted above;
                // the panel has as many rows as the chain; a narrow tile fits `spare`. One of A's strides is 1.
                unsafe { b.micro.run(rows, vectors, &chain, tile, add && !narrow) };
                if narrow {
                    for (row, sums) in spare.chunks_exact(vectors * lanes).take(rows).enumerate() {
                        let c = &mut c[(i + row) * c_row + first..][..columns];
                        for (c, &sum) in c.iter_mut().zip(sums) {
                            *c = if add { *c + sum } else { sum };
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
