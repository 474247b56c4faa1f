//! Rows that become columns while they are split into parts of bf16.

use ddpm_tensor::cpu::isa::Set;
use ddpm_tensor::{Element, Isa};

use super::bf16::parts;
use super::unit::SIDE;

/// 16 rows of 16 numbers.
type Square = [[u32; SIDE]; SIDE];

/// Where the numbers of a turned matrix go: row c is `row` after row c − 1, low parts are `low` after high ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turned {
    pub(super) row: usize,
    pub(super) low: usize,
}

/// Turns `count` positions of `c` numbers each, `stride` apart, into rows of channels: `out[c·row + at + i]`.
#[allow(clippy::too_many_arguments)]
pub(super) fn turn<T: Element>(
    isa: Isa,
    from: &[T],
    stride: usize,
    count: usize,
    c: usize,
    out: &mut [u16],
    to: Turned,
    at: usize,
) {
    for first in (0..count).step_by(SIDE) {
        let positions = (count - first).min(SIDE);
        for channel in (0..c).step_by(SIDE) {
            let channels = (c - channel).min(SIDE);
            let start = channel * to.row + at + first;
            let from = &from[first * stride + channel..];
            #[cfg(target_arch = "x86_64")]
            if let (true, Some(from)) = (has_avx512(isa), T::as_f32(from)) {
                assert!(from.len() >= (positions - 1) * stride + channels);
                assert!(out.len() >= start + (channels - 1) * to.row + to.low + positions);
                // SAFETY: the machine has AVX-512; what is read and written lies in the slices, as asserted.
                unsafe { avx512::turn(from.as_ptr(), stride, (positions, channels), out.as_mut_ptr().add(start), to) };
                continue;
            }
            let mut square: Square = [[0; SIDE]; SIDE];
            for (i, row) in square.iter_mut().enumerate().take(positions) {
                for (j, from) in from[i * stride..][..channels].iter().enumerate() {
                    let (high, low) = parts(from.to_f32());
                    row[j] = high | low << 16;
                }
            }
            for j in 0..channels {
                for (i, row) in square.iter().enumerate().take(positions) {
                    out[start + j * to.row + i] = row[j] as u16;
                    out[start + j * to.row + to.low + i] = (row[j] >> 16) as u16;
                }
            }
        }
    }
}

/// A tile of a right operand whose columns lie in memory as rows: up to 16 columns (`row` apart) of up to 32 numbers become
/// 16 rows of pairs; what is missing is zero.
pub(super) fn pair_columns<T: Element>(
    isa: Isa,
    from: &[T],
    row: usize,
    (columns, depth): (usize, usize),
    high: &mut Square,
    low: &mut Square,
) {
    #[cfg(target_arch = "x86_64")]
    if let (true, true, Some(from)) = (has_avx512(isa), columns == SIDE && depth == 2 * SIDE, T::as_f32(from)) {
        assert!(from.len() > (SIDE - 1) * row + 2 * SIDE - 1);
        // SAFETY: the machine has AVX-512; what is read lies in the slice, as asserted.
        unsafe { avx512::pair_columns(from.as_ptr(), row, high, low) };
        return;
    }
    let _ = isa;
    (*high, *low) = ([[0; SIDE]; SIDE], [[0; SIDE]; SIDE]);
    for j in 0..columns {
        for (k, from) in from[j * row..][..depth].iter().enumerate() {
            let (h, l) = parts(from.to_f32());
            high[k / 2][j] |= h << (k % 2 * 16);
            low[k / 2][j] |= l << (k % 2 * 16);
        }
    }
}

fn has_avx512(isa: Isa) -> bool {
    matches!(isa.set(), Set::Avx512 | Set::Amx)
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    #[allow(clippy::wildcard_imports)] // the names are Intel's own
    use std::arch::x86_64::*;

    use super::{SIDE, Square, Turned};

    /// Bits of the nearest bf16 in the low half of each lane.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn nearest(x: __m512) -> __m512i {
        let bits = _mm512_castps_si512(x);
        let top = _mm512_srli_epi32::<16>(bits);
        let odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
        let unordered = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
        _mm512_mask_or_epi32(_mm512_srli_epi32::<16>(rounded), unordered, top, _mm512_set1_epi32(0x40))
    }

    /// High and low parts, each in the low half of its lane.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn parts(x: __m512) -> (__m512i, __m512i) {
        let high = nearest(x);
        let rest = _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(high)));
        (high, nearest(rest))
    }

    /// Rows become columns: four rounds in which rows i and i + 8 are interleaved.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn transpose(mut rows: [__m512i; SIDE]) -> [__m512i; SIDE] {
        let first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        let second = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        for _ in 0..4 {
            let from = rows;
            for i in 0..SIDE / 2 {
                rows[2 * i] = _mm512_permutex2var_epi32(from[i], first, from[i + SIDE / 2]);
                rows[2 * i + 1] = _mm512_permutex2var_epi32(from[i], second, from[i + SIDE / 2]);
            }
        }
        rows
    }

    /// # Safety
    /// `positions` rows of `channels` numbers (up to 16), `stride` apart, must be readable; `positions` numbers of as many rows
    /// writable in both parts of `out`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn turn(
        from: *const f32,
        stride: usize,
        (positions, channels): (usize, usize),
        out: *mut u16,
        to: Turned,
    ) {
        let first = |count: usize| ((1u32 << count) - 1) as u16;
        let mut rows = [_mm512_setzero_si512(); SIDE];
        for (i, row) in rows.iter_mut().enumerate().take(positions) {
            // SAFETY: the caller's promise.
            let (high, low) = parts(unsafe { _mm512_maskz_loadu_ps(first(channels), from.add(i * stride)) });
            *row = _mm512_or_si512(high, _mm512_slli_epi32::<16>(low));
        }
        for (j, row) in transpose(rows).into_iter().enumerate().take(channels) {
            let (high, low) = (_mm512_cvtepi32_epi16(row), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(row)));
            // SAFETY: the caller's promise.
            unsafe {
                let out = out.add(j * to.row).cast();
                _mm256_mask_storeu_epi16(out, first(positions), high);
                _mm256_mask_storeu_epi16(out.add(to.low), first(positions), low);
            }
        }
    }

    /// # Safety
    /// 16 rows of 32 numbers, `row` apart, must be readable.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn pair_columns(from: *const f32, row: usize, high: &mut Square, low: &mut Square) {
        let mut rows = [[_mm512_setzero_si512(); SIDE]; 2];
        let [high_rows, low_rows] = &mut rows;
        for (j, (high, low)) in high_rows.iter_mut().zip(low_rows).enumerate() {
            // SAFETY: the caller's promise.
            let halves = unsafe {
                let from = from.add(j * row);
                [parts(_mm512_loadu_ps(from)), parts(_mm512_loadu_ps(from.add(SIDE)))]
            };
            let [a, b] = halves.map(|(high, low)| (_mm512_cvtepi32_epi16(high), _mm512_cvtepi32_epi16(low)));
            *high = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a.0), b.0);
            *low = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a.1), b.1);
        }
        for (rows, out) in rows.into_iter().zip([high, low]) {
            for (row, out) in transpose(rows).into_iter().zip(out) {
                // SAFETY: 16 numbers of 4 bytes.
                unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), row) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::values;

    #[test]
    fn every_set_turns_alike() {
        let mut x = values::<f32>(8, 40 * 50);
        (x[3], x[77], x[500]) = (f32::NAN, f32::INFINITY, 1e-40);
        let turned = |isa| {
            let mut out = vec![0; 2 * 50 * 64];
            turn(isa, &x, 50, 40, 50, &mut out, Turned { row: 64, low: 50 * 64 }, 3);
            let (mut high, mut low) = ([[0; SIDE]; SIDE], [[0; SIDE]; SIDE]);
            pair_columns(isa, &x, 50, (16, 32), &mut high, &mut low);
            (out, high, low)
        };
        let reference = turned(Isa::PORTABLE);
        assert_eq!(reference.0[64 + 3 + 2], parts(x[2 * 50 + 1]).0 as u16);
        assert_eq!(reference.1[3][5], parts(x[5 * 50 + 6]).0 | parts(x[5 * 50 + 7]).0 << 16);
        for isa in Isa::all() {
            assert!(turned(isa) == reference, "{isa}");
        }
    }
}
