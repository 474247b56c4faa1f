//! Blocks by AVX-512's dot products of pairs of bf16: sums of 8 rows by one or two vectors stay in registers, a pair of the left
//! operand is spread over a vector.

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

use super::{Block, DEPTH, ROW_BYTES, SIDE, Step};

/// Rows whose sums are kept in registers.
const ROWS: usize = 8;

/// Computes a block of rounded numbers.
///
/// # Safety
/// As [`super::Tiles::run`], on a machine that has AVX-512 and its operations on bf16.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn rounded(steps: &[Step], t: Block, add: bool) {
    for row in (0..t.rows * SIDE).step_by(ROWS) {
        // SAFETY: these rows of the block's tiles, by the caller's promise.
        unsafe {
            let a = t.a.wrapping_add(row / SIDE * t.a_tile).wrapping_add(row % SIDE * t.a_row);
            let t = Block { a, out: t.out.add(row * t.out_row), ..t };
            if t.columns == 1 { rows::<1>(steps, t, add) } else { rows::<2>(steps, t, add) }
        }
    }
}

/// 64 bytes as numbers of bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn numbers(bytes: __m512i) -> __m512bh {
    // SAFETY: both types are 64 bytes of numbers.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(bytes) }
}

/// Eight rows: each sum is one chain over k, from zero or from what is there.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows<const V: usize>(steps: &[Step], t: Block, add: bool) {
    let mut sums = [[_mm512_setzero_ps(); V]; ROWS];
    if add {
        for (m, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the result's own tiles, by the caller's promise.
                *sum = unsafe { _mm512_loadu_ps(t.out.add(m * t.out_row + v * SIDE)) };
            }
        }
    }
    for step in steps {
        // SAFETY: rows and tiles that the caller says are there; numbers of 4 and 64 bytes may lie anywhere.
        unsafe {
            let a = t.a.wrapping_add(step.a);
            // one address for three rows: the second and third are reached by an index
            let bases = [a, a.wrapping_add(3 * t.a_row), a.wrapping_add(6 * t.a_row)];
            let b = t.b.add(step.b);
            for pair in 0..DEPTH / 2 {
                let right: [__m512bh; V] = std::array::from_fn(|v| {
                    numbers(_mm512_loadu_si512(b.wrapping_add(v * t.b_tile + pair * ROW_BYTES).cast()))
                });
                for (m, sums) in sums.iter_mut().enumerate() {
                    let left = bases[m / 3].add(m % 3 * t.a_row + pair * 4).cast::<i32>().read_unaligned();
                    let left = numbers(_mm512_set1_epi32(left));
                    for (sum, &right) in sums.iter_mut().zip(&right) {
                        *sum = _mm512_dpbf16_ps(*sum, left, right);
                    }
                }
            }
        }
    }
    for (m, sums) in sums.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(t.out.add(m * t.out_row + v * SIDE), sum) };
        }
    }
}
