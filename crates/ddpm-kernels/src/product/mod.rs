//! Products of matrices in memory of any strides, `C = A·B` or `C += A·B`.
//!
//! Each element of C is one chain of multiply-adds over k, in order and from zero; k beyond [`K_BLOCK`] begins another
//! chain, and chains are added in order. So the bits depend on k alone: not on m, n, the instruction set, or on what else
//! is computed with them.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use ddpm_tensor::cpu::CpuBuffer;
use ddpm_tensor::cpu::isa::Set;
use ddpm_tensor::{Cpu, Element, Isa};

/// Longest chain of multiply-adds.
const K_BLOCK: usize = 1024;

/// A matrix in memory: element (i, j) is `data[i·row + j·column]`.
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
    isa: Isa,
}

/// Columns of a panel.
fn panel_width<T: Element>(isa: Isa) -> usize {
    match isa.set() {
        #[cfg(target_arch = "x86_64")]
        Set::Avx512 if size_of::<T>() == 4 => x86::avx512::COLUMNS,
        _ => portable::COLUMNS,
    }
}

impl<T: Element> Packed<T> {
    /// Packs the first `k` rows and `n` columns of `b`.
    pub(crate) fn new(cpu: &Cpu<T>, b: Matrix<'_, T>, k: usize, n: usize) -> Self {
        b.assert_holds(k, n);
        let isa = cpu.isa();
        let width = panel_width::<T>(isa);
        let mut panels = cpu.scratch(k * n.next_multiple_of(width));
        let mut rest = &mut panels[..];
        for k_first in (0..k).step_by(K_BLOCK) {
            let block = K_BLOCK.min(k - k_first);
            for first in (0..n).step_by(width) {
                let panel;
                (panel, rest) = rest.split_at_mut(block * width);
                pack_panel(b, k_first, first..n.min(first + width), width, panel);
            }
        }
        Self { panels, k, n, isa }
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

/// One panel's product: `c[i, j] (+)= Σ_k a[i, k]·panel[k, j]` for i < m and j < `columns`, a's element (i, k) being
/// `a[i·a_row + k·a_column]` and c's `c[i·c_row + j]`.
struct Job<'a, T> {
    a: &'a [T],
    a_row: usize,
    a_column: usize,
    m: usize,
    k: usize,
    panel: &'a [T],
    columns: usize,
    add: bool,
    c_row: usize,
}

/// `C = A·B`, or `C += A·B` with `add`: A has `m` rows and as many columns as B has rows; row i of C is
/// `c[i·c_row..][..n]`.
///
/// # Panics
/// When A's or C's memory is too short: that is a mistake of the caller, not of a user.
pub(crate) fn multiply<T: Element>(a: Matrix<'_, T>, m: usize, b: &Packed<T>, add: bool, c: &mut [T], c_row: usize) {
    a.assert_holds(m, b.k);
    Matrix::rows(c, c_row).assert_holds(m, b.n);
    let width = panel_width::<T>(b.isa);
    if b.k == 0 && !add && b.n > 0 {
        c.chunks_mut(c_row).take(m).for_each(|row| row[..b.n].fill(T::ZERO));
    }
    if m == 0 {
        return;
    }
    let mut rest = &b.panels[..];
    for k_first in (0..b.k).step_by(K_BLOCK) {
        let k = K_BLOCK.min(b.k - k_first);
        for first in (0..b.n).step_by(width) {
            let panel;
            (panel, rest) = rest.split_at(k * width);
            let job = Job {
                a: &a.data[k_first * a.column..],
                a_row: a.row,
                a_column: a.column,
                m,
                k,
                panel,
                columns: width.min(b.n - first),
                add: add || k_first > 0,
                c_row,
            };
            run(b.isa, &job, &mut c[first..]);
        }
    }
}

fn run<T: Element>(isa: Isa, job: &Job<'_, T>, c: &mut [T]) {
    #[cfg(target_arch = "x86_64")]
    if let (Some(a), Some(panel)) = (T::as_f32(job.a), T::as_f32(job.panel))
        && isa.set() >= Set::Avx2
        && let Some(c) = T::as_f32_mut(c)
    {
        let Job { a_row, a_column, m, k, columns, add, c_row, .. } = *job;
        let job = Job { a, a_row, a_column, m, k, panel, columns, add, c_row };
        // SAFETY: an `Isa` of a set exists only where the machine has the set; `multiply` has asserted that A and C
        // hold what is read and written, and a panel has k rows of the set's width.
        unsafe {
            match isa.set() {
                Set::Avx512 => x86::avx512::run(&job, c),
                _ => x86::avx2::run(&job, c),
            }
        }
        return;
    }
    portable::run(isa, job, c);
}

#[cfg(test)]
mod tests;
