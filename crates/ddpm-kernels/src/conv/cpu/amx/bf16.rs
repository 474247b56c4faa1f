//! Numbers as sums of two of bf16, and the orders in which tiles read them.

use ddpm_tensor::{Element, simd};

use super::unit::SIDE;

/// Bits of the nearest bf16, ties to even; what is not a number stays so.
#[inline(always)]
fn nearest(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    let quiet = bits >> 16 | 0x40;
    if bits & 0x7fff_ffff > 0x7f80_0000 { quiet } else { rounded }
}

/// Bits of `high` and `low`, x = high + low up to 2⁻¹⁷ of it.
#[inline(always)]
pub(super) fn parts(x: f32) -> (u32, u32) {
    let high = nearest(x);
    (high, nearest(x - f32::from_bits(high << 16)))
}

simd! {
    /// Splits rows of `c` numbers into high and low rows of `width ≥ c`, the rest of which is zero.
    pub(super) fn split_rows[T: Element](isa, from: &[T], c: usize, high: &mut [u16], low: &mut [u16], width: usize) {
        let rows = high.chunks_exact_mut(width).zip(low.chunks_exact_mut(width));
        for (from, (high, low)) in from.chunks_exact(c).zip(rows) {
            let (high, high_rest) = high.split_at_mut(c);
            let (low, low_rest) = low.split_at_mut(c);
            for i in 0..c {
                let (h, l) = parts(from[i].to_f32());
                high[i] = h as u16;
                low[i] = l as u16;
            }
            high_rest.fill(0);
            low_rest.fill(0);
        }
    }
}

/// A row of pairs of a right operand, zeros to the right of its columns.
#[inline(always)]
fn pair<T: Element>(first: &[T], second: &[T], high: &mut [u32], low: &mut [u32]) {
    let mut numbers = [[0.0f32; SIDE]; 2];
    for (numbers, from) in numbers.iter_mut().zip([first, second]) {
        for (number, from) in numbers.iter_mut().zip(from) {
            *number = from.to_f32();
        }
    }
    let (high, low) = (&mut high[..SIDE], &mut low[..SIDE]);
    for i in 0..SIDE {
        let (a, b) = (parts(numbers[0][i]), parts(numbers[1][i]));
        high[i] = a.0 | b.0 << 16;
        low[i] = a.1 | b.1 << 16;
    }
}

/// The part of a row that a tile's columns take; nothing where the row ends before.
#[inline(always)]
fn some<T>(row: &[T], column: usize) -> &[T] {
    &row[column.min(row.len())..(column + SIDE).min(row.len())]
}

simd! {
    /// Two rows of a right operand, all columns: tiles are `tile` pairs apart. A missing row is empty.
    pub(super) fn pair_rows[T: Element](isa, first: &[T], second: &[T], high: &mut [u32], low: &mut [u32], tile: usize) {
        let columns = first.len().max(second.len());
        for (i, column) in (0..columns).step_by(SIDE).enumerate() {
            pair(some(first, column), some(second, column), &mut high[i * tile..], &mut low[i * tile..]);
        }
    }
}

simd! {
    /// A tile of a right operand whose rows are `row` apart: up to 32 rows of up to 16 columns.
    pub(super) fn pair_tile[T: Element](isa, from: &[T], row: usize, depth: usize, columns: usize, high: &mut [u32], low: &mut [u32]) {
        for k in 0..SIDE {
            let at = |k: usize| if k < depth { &from[k * row..k * row + columns] } else { &[][..] };
            pair(at(2 * k), at(2 * k + 1), &mut high[k * SIDE..], &mut low[k * SIDE..]);
        }
    }
}

/// Rows become columns.
#[inline(always)]
fn transpose(block: &[[u32; SIDE]; SIDE]) -> [[u32; SIDE]; SIDE] {
    let mut turned = [[0; SIDE]; SIDE];
    for i in 0..SIDE {
        for j in 0..SIDE {
            turned[j][i] = block[i][j];
        }
    }
    turned
}

simd! {
    /// A right operand whose columns lie in memory as rows: up to 16 columns of up to 32 numbers each (`row` apart) become
    /// 16 rows of pairs; what is missing is zero.
    pub(super) fn pair_columns[T: Element](isa, from: &[T], row: usize, columns: usize, depth: usize, high: &mut [[u32; SIDE]; SIDE], low: &mut [[u32; SIDE]; SIDE]) {
        let mut blocks = [[[0u32; SIDE]; SIDE]; 2];
        for j in 0..columns {
            let mut numbers = [0.0f32; 2 * SIDE];
            for (number, from) in numbers[..depth].iter_mut().zip(&from[j * row..]) {
                *number = from.to_f32();
            }
            for i in 0..SIDE {
                let (a, b) = (parts(numbers[2 * i]), parts(numbers[2 * i + 1]));
                blocks[0][j][i] = a.0 | b.0 << 16;
                blocks[1][j][i] = a.1 | b.1 << 16;
            }
        }
        *high = transpose(&blocks[0]);
        *low = transpose(&blocks[1]);
    }
}

/// Where a number of a turned matrix goes: `out[c·row + position]`, high parts first, low parts `low` later.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turned {
    pub(super) row: usize,
    pub(super) low: usize,
}

simd! {
    /// Turns `count` positions of `c` numbers each, `stride` apart, into rows of channels: `out[c·row + at + i]`.
    pub(super) fn turn[T: Element](isa, from: &[T], stride: usize, count: usize, c: usize, out: &mut [u16], to: Turned, at: usize) {
        for first in (0..count).step_by(SIDE) {
            let positions = (count - first).min(SIDE);
            for channel in (0..c).step_by(SIDE) {
                let channels = (c - channel).min(SIDE);
                let mut block = [[0u32; SIDE]; SIDE];
                for (i, block) in block.iter_mut().enumerate().take(positions) {
                    let from = &from[(first + i) * stride + channel..][..channels];
                    for (to, from) in block.iter_mut().zip(from) {
                        let (high, low) = parts(from.to_f32());
                        *to = high | low << 16;
                    }
                }
                let turned = transpose(&block);
                for (j, numbers) in turned.iter().enumerate().take(channels) {
                    let start = (channel + j) * to.row + at + first;
                    let (high, low) = out[start..].split_at_mut(to.low);
                    for (i, (high, low)) in high.iter_mut().zip(low).enumerate().take(positions) {
                        *high = numbers[i] as u16;
                        *low = (numbers[i] >> 16) as u16;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_as_exact_as_two_numbers_of_bf16_can_be() {
        let mut worst = 0.0f64;
        for x in crate::testing::values::<f32>(5, 100_000) {
            let (high, low) = parts(x);
            let sum = f64::from(f32::from_bits(high << 16)) + f64::from(f32::from_bits(low << 16));
            worst = worst.max(((sum - f64::from(x)) / f64::from(x)).abs());
        }
        assert!(worst > 0.0 && worst <= 2f64.powi(-17), "worst relative error {worst:e}");
        assert!(f32::from_bits(parts(f32::NAN).0 << 16).is_nan());
        assert!(f32::from_bits(parts(f32::from_bits(0x7fff_ffff)).0 << 16).is_nan());
        assert_eq!(parts(f32::INFINITY).0, 0x7f80);
        assert_eq!(parts(1.0), (0x3f80, 0));
    }
}
