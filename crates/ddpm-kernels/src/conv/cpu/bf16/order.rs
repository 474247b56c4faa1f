//! The orders in which tiles read their operands, made while numbers are split into parts of bf16: planes of pixels, pairs of
//! rows, and rows that become columns. On AMX in registers, elsewhere (in tests) in plain code, with the same bits.

use ddpm_tensor::{Element, Isa};

use super::parts::{pair, parts as parts_of};
use super::unit::{DEPTH, SIDE};

/// 16 rows of 16 pairs: a tile of a right operand.
pub(super) type Square = [[u32; SIDE]; SIDE];

/// The same numbers as f32 where the machine converts them itself.
#[cfg(target_arch = "x86_64")]
fn native<T: Element>(isa: Isa, numbers: &[T]) -> Option<&[f32]> {
    isa.multiplies_bf16().then(|| T::as_f32(numbers)).flatten()
}

/// Splits pixels of `c` numbers into planes of 32 channels, each of them followed by one of low parts where `parts` is 2; planes are
/// `plane` numbers long, in which pixels follow each other from `at` on, with zeros where there are no more channels.
pub(super) fn split_pixels<T: Element>(
    isa: Isa,
    from: &[T],
    c: usize,
    planes: &mut [u16],
    (plane, parts): (usize, usize),
    at: usize,
) {
    for (k, planes) in planes.chunks_exact_mut(parts * plane).enumerate() {
        let (high, low) = planes.split_at_mut(plane);
        let high = high[at..].as_chunks_mut::<DEPTH>().0;
        let mut low = (parts == 2).then(|| low[at..].as_chunks_mut::<DEPTH>().0);
        #[cfg(target_arch = "x86_64")]
        if let Some(from) = native(isa, from) {
            // SAFETY: the machine has AVX-512 and its conversions.
            unsafe { avx512::split_pixels(from, c, k * DEPTH, high, low) };
            continue;
        }
        let _ = isa;
        for (i, (from, high)) in from.chunks_exact(c).zip(high).enumerate() {
            let mut numbers = [[0; 2]; DEPTH];
            for (number, from) in numbers.iter_mut().zip(&from[k * DEPTH..]) {
                *number = parts_of(from.to_f32());
            }
            *high = numbers.map(|[high, _]| high);
            if let Some(low) = &mut low {
                low[i] = numbers.map(|[_, low]| low);
            }
        }
    }
}

/// Two rows of a right operand, all columns: tiles are `tile` pairs apart, zeros to the right of the last.
pub(super) fn pair_rows<T: Element>(
    isa: Isa,
    first: &[T],
    second: &[T],
    high: &mut [u32],
    mut low: Option<&mut [u32]>,
    tile: usize,
) {
    assert_eq!(first.len(), second.len(), "rows of a pair");
    #[cfg(target_arch = "x86_64")]
    if let (Some(first), Some(second)) = (native(isa, first), native(isa, second)) {
        // SAFETY: the machine has AVX-512 and its conversions.
        unsafe { avx512::pair_rows(first, second, high, low, tile) };
        return;
    }
    let _ = isa;
    for column in 0..first.len().next_multiple_of(SIDE) {
        let at = column / SIDE * tile + column % SIDE;
        let number = |row: &[T]| row.get(column).map_or(0.0, |x| x.to_f32());
        let numbers = pair(number(first), number(second));
        high[at] = numbers[0];
        if let Some(low) = &mut low {
            low[at] = numbers[1];
        }
    }
}

/// A tile of a right operand whose rows are `row` apart: up to 32 rows of up to 16 columns; what is missing is zero.
pub(super) fn pair_tile<T: Element>(
    isa: Isa,
    from: &[T],
    row: usize,
    (depth, columns): (usize, usize),
    high: &mut Square,
    low: Option<&mut Square>,
) {
    #[cfg(target_arch = "x86_64")]
    if let Some(from) = native(isa, from) {
        // SAFETY: the machine has AVX-512 and its conversions.
        unsafe { avx512::pair_tile(from, row, (depth, columns), high, low) };
        return;
    }
    let _ = isa;
    plain_tile(high, low, |k, j| if k < depth && j < columns { from[k * row + j].to_f32() } else { 0.0 });
}

/// A tile of pairs of the numbers `number(k, column)`.
fn plain_tile(high: &mut Square, mut low: Option<&mut Square>, number: impl Fn(usize, usize) -> f32) {
    for (k, j) in (0..SIDE).flat_map(|k| (0..SIDE).map(move |j| (k, j))) {
        let numbers = pair(number(2 * k, j), number(2 * k + 1, j));
        high[k][j] = numbers[0];
        if let Some(low) = &mut low {
            low[k][j] = numbers[1];
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
    low: Option<&mut Square>,
) {
    #[cfg(target_arch = "x86_64")]
    if let Some(from) = native(isa, from) {
        // SAFETY: the machine has AVX-512 and its conversions.
        unsafe { avx512::pair_columns(from, row, (columns, depth), high, low) };
        return;
    }
    let _ = isa;
    plain_tile(high, low, |k, j| if k < depth && j < columns { from[j * row + k].to_f32() } else { 0.0 });
}

/// Where the numbers of a turned matrix go: row c is `row` after row c − 1, low parts, if wanted, are `low` after high ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turned {
    pub(super) row: usize,
    pub(super) low: Option<usize>,
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
            let out = &mut out[channel * to.row + at + first..];
            let from = &from[first * stride + channel..];
            #[cfg(target_arch = "x86_64")]
            if let Some(from) = native(isa, from) {
                // SAFETY: the machine has AVX-512 and its conversions.
                unsafe { avx512::turn(from, stride, (positions, channels), out, to) };
                continue;
            }
            let _ = isa;
            for (i, j) in (0..positions).flat_map(|i| (0..channels).map(move |j| (i, j))) {
                let at = j * to.row + i;
                let numbers = parts_of(from[i * stride + j].to_f32());
                out[at] = numbers[0];
                if let Some(low) = to.low {
                    out[at + low] = numbers[1];
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    #[allow(clippy::wildcard_imports)] // the names are Intel's own
    use std::arch::x86_64::*;

    use super::super::parts::native::{pairs, parts, parts_of_32, round};
    use super::{DEPTH, SIDE, Square, Turned};

    /// Up to 16 numbers, then zeros.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn some(from: &[f32]) -> __m512 {
        let count = from.len().min(SIDE);
        // SAFETY: reads as many numbers as there are.
        unsafe { _mm512_maskz_loadu_ps(((1u32 << count) - 1) as u16, from.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store(out: &mut [u32], numbers: __m512i) {
        let out = &mut out[..SIDE];
        // SAFETY: 16 numbers of 4 bytes.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), numbers) };
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) fn split_pixels(
        from: &[f32],
        c: usize,
        channel: usize,
        high: &mut [[u16; DEPTH]],
        low: Option<&mut [[u16; DEPTH]]>,
    ) {
        let halves = |from: &[f32]| {
            let from = &from[channel..];
            (some(from), some(&from[SIDE.min(from.len())..]))
        };
        // SAFETY: 32 numbers of 2 bytes each.
        let put = |to: &mut [u16; DEPTH], numbers| unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), numbers) };
        let Some(low) = low else {
            for (from, high) in from.chunks_exact(c).zip(high) {
                let (first, second) = halves(from);
                put(high, round(first, second));
            }
            return;
        };
        for (from, (high, low)) in from.chunks_exact(c).zip(high.iter_mut().zip(low)) {
            let (first, second) = halves(from);
            let [h, l] = parts_of_32(first, second);
            put(high, h);
            put(low, l);
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) fn pair_rows(first: &[f32], second: &[f32], high: &mut [u32], mut low: Option<&mut [u32]>, tile: usize) {
        for (i, (first, second)) in first.chunks(SIDE).zip(second.chunks(SIDE)).enumerate() {
            let [h, l] = pairs(some(first), some(second));
            store(&mut high[i * tile..], h);
            if let Some(low) = &mut low {
                store(&mut low[i * tile..], l);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) fn pair_tile(
        from: &[f32],
        row: usize,
        (depth, columns): (usize, usize),
        high: &mut Square,
        mut low: Option<&mut Square>,
    ) {
        let at = |k: usize| if k < depth { &from[k * row..k * row + columns] } else { &[] };
        for (k, high) in high.iter_mut().enumerate() {
            let [h, l] = pairs(some(at(2 * k)), some(at(2 * k + 1)));
            store(high, h);
            if let Some(low) = &mut low {
                store(&mut low[k], l);
            }
        }
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

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) fn pair_columns(
        from: &[f32],
        row: usize,
        (columns, depth): (usize, usize),
        high: &mut Square,
        low: Option<&mut Square>,
    ) {
        let mut rows = [[_mm512_setzero_si512(); SIDE]; 2];
        let [high_rows, low_rows] = &mut rows;
        for (j, (h, l)) in high_rows.iter_mut().zip(low_rows).enumerate().take(columns) {
            let from = &from[j * row..][..depth];
            [*h, *l] = parts_of_32(some(from), some(&from[SIDE.min(depth)..]));
        }
        for (rows, out) in rows.into_iter().zip([Some(high), low]) {
            let Some(out) = out else { continue };
            for (row, out) in transpose(rows).into_iter().zip(out) {
                store(out, row);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) fn turn(
        from: &[f32],
        stride: usize,
        (positions, channels): (usize, usize),
        out: &mut [u16],
        to: Turned,
    ) {
        assert!(out.len() >= (channels - 1) * to.row + to.low.unwrap_or(0) + positions);
        let mut rows = [_mm512_setzero_si512(); SIDE];
        for (i, row) in rows.iter_mut().enumerate().take(positions) {
            *row = _mm512_castps_si512(some(&from[i * stride..][..channels]));
        }
        let mask = ((1u32 << positions) - 1) as u16;
        for (j, row) in transpose(rows).into_iter().enumerate().take(channels) {
            let [high, low] = parts(_mm512_castsi512_ps(row));
            // SAFETY: `positions` numbers of the last row of low parts end within the slice, asserted above.
            unsafe {
                let out = out.as_mut_ptr().add(j * to.row).cast();
                _mm256_mask_storeu_epi16(out, mask, high);
                if let Some(distance) = to.low {
                    _mm256_mask_storeu_epi16(out.add(distance), mask, low);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::values;

    /// Every order of a matrix of 40 rows of 50 numbers.
    fn orders(isa: Isa, x: &[f32]) -> (Vec<u16>, Vec<u32>, Vec<u16>) {
        let mut planes = vec![7; 2 * 2 * 45 * DEPTH];
        split_pixels(isa, x, 50, &mut planes, (45 * DEPTH, 2), 2 * DEPTH);
        let mut pairs = vec![7; 2 * 4 * 20];
        let (high, low) = pairs.split_at_mut(4 * 20);
        pair_rows(isa, &x[..50], &x[50..100], high, Some(low), 20);
        for size in [(32, 16), (17, 16), (32, 5)] {
            let mut tiles = [[[7; SIDE]; SIDE]; 4];
            let [a, b, c, d] = &mut tiles;
            pair_tile(isa, x, 50, size, a, Some(b));
            pair_columns(isa, x, 50, (size.1, size.0), c, Some(d));
            pairs.extend(tiles.as_flattened().as_flattened());
        }
        let mut turned = vec![7; 2 * 50 * 64];
        turn(isa, x, 50, 40, 50, &mut turned, Turned { row: 64, low: Some(50 * 64) }, 3);
        (planes, pairs, turned)
    }

    #[test]
    fn numbers_are_where_tiles_look_for_them_on_every_set() {
        let mut x = values::<f32>(8, 40 * 50);
        (x[3], x[77], x[500], x[61]) = (f32::NAN, f32::INFINITY, 1e-40, -1e-45);
        let (planes, pairs, turned) = orders(Isa::PORTABLE, &x);
        // pixel 5, channel 37: second plane of high parts
        assert_eq!(planes[(2 * 45 + 2 + 5) * DEPTH + 37 - 32], parts_of(x[5 * 50 + 37])[0]);
        assert_eq!(pairs[20 + 4], pair(x[20], x[70])[0]);
        let tile = 2 * 4 * 20;
        assert_eq!(pairs[tile + 3 * SIDE + 9], pair(x[6 * 50 + 9], x[7 * 50 + 9])[0]);
        assert_eq!(pairs[tile + 2 * SIDE * SIDE + 3 * SIDE + 9], pair(x[9 * 50 + 6], x[9 * 50 + 7])[0]);
        assert_eq!(turned[50 * 64 + 12 * 64 + 3 + 20], parts_of(x[20 * 50 + 12])[1]);
        for isa in Isa::all() {
            assert!(orders(isa, &x) == (planes.clone(), pairs.clone(), turned.clone()), "{isa}");
        }
    }
}
