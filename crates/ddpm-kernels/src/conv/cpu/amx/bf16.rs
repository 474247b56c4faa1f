//! Numbers as sums of two of bf16, and the orders in which tiles read them.

use ddpm_tensor::{Element, simd};

use super::unit::{DEPTH, SIDE};

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
    /// Splits pixels of `c` numbers into planes of 32 channels, high and low in turn, each `plane` numbers long; in a plane
    /// pixels follow each other from `at` on, with zeros where there are no more channels.
    pub(super) fn split_pixels[T: Element](isa, from: &[T], c: usize, planes: &mut [u16], plane: usize, at: usize) {
        for (k, planes) in planes.chunks_exact_mut(2 * plane).enumerate() {
            let (high, low) = planes.split_at_mut(plane);
            let to = high[at..].as_chunks_mut::<DEPTH>().0.iter_mut().zip(low[at..].as_chunks_mut::<DEPTH>().0);
            for (from, (high, low)) in from.chunks_exact(c).zip(to) {
                let from = &from[k * DEPTH..];
                if let Some(from) = from.first_chunk::<DEPTH>() {
                    for i in 0..DEPTH {
                        let (h, l) = parts(from[i].to_f32());
                        high[i] = h as u16;
                        low[i] = l as u16;
                    }
                } else {
                    (*high, *low) = ([0; DEPTH], [0; DEPTH]);
                    for (i, from) in from.iter().enumerate() {
                        let (h, l) = parts(from.to_f32());
                        high[i] = h as u16;
                        low[i] = l as u16;
                    }
                }
            }
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
