//! A panel's product for every number type and instruction set; the reference for the others.

use ddpm_tensor::{Element, simd};

use super::Job;

/// Columns of a panel.
pub(super) const COLUMNS: usize = 16;
/// Rows computed together.
const ROWS: usize = 4;

simd! {
    /// What [`Job`] says.
    pub(super) fn run[T: Element](isa, job: &Job<'_, T>, c: &mut [T]) {
        let whole = job.m / ROWS * ROWS;
        for first in (0..whole).step_by(ROWS) {
            tile::<T, ROWS>(job, first, c);
        }
        for first in whole..job.m {
            tile::<T, 1>(job, first, c);
        }
    }
}

#[inline(always)]
fn tile<T: Element, const M: usize>(job: &Job<'_, T>, first: usize, c: &mut [T]) {
    let mut sums = [[T::ZERO; COLUMNS]; M];
    let a = &job.a[first * job.a_row..];
    for (k, b) in job.panel.as_chunks::<COLUMNS>().0.iter().enumerate() {
        for (i, sums) in sums.iter_mut().enumerate() {
            let a = a[i * job.a_row + k * job.a_column];
            for j in 0..COLUMNS {
                sums[j] = a.fma(b[j], sums[j]);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        let row = &mut c[(first + i) * job.c_row..][..job.columns];
        for (c, &sum) in row.iter_mut().zip(sums) {
            *c = if job.add { *c + sum } else { sum };
        }
    }
}
