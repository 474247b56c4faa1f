//! The epilogue of a panel's product.

use std::ops::Range;

use ddpm_tensor::{Cpu, Element, simd};

use crate::Epilogue;
use crate::lanes::{LANES, Lanes, Strided, change, change_with, groups, map, map_two};

/// Rows of a product that count: in a flattened image of rows `pitch` apart, of which the first `line` pixels do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines {
    pub(super) line: usize,
    pub(super) pitch: usize,
    /// Pixels that count in all.
    pub(super) pixels: usize,
}

impl Lines {
    /// Runs of pixels among rows `first..first + count`: (row from the first, pixel, pixels).
    pub(super) fn runs(self, first: usize, count: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let mut row = first;
        std::iter::from_fn(move || {
            if row % self.pitch >= self.line {
                row = row.next_multiple_of(self.pitch);
            }
            let (line, x) = (row / self.pitch, row % self.pitch);
            let pixel = line * self.line + x;
            if row >= first + count || pixel >= self.pixels {
                return None;
            }
            let run = (row - first, pixel, (self.line - x).min(first + count - row));
            row += run.2;
            Some(run)
        })
    }
}

/// What an epilogue adds to some pixels of one image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending<'a, T> {
    bias: &'a [T],
    channel: &'a [T],
    residual: &'a [T],
    scale: T,
}

impl<'a, T: Element> Ending<'a, T> {
    /// The result as it is.
    pub(super) const NONE: Self = Self { bias: &[], channel: &[], residual: &[], scale: T::ONE };

    /// bias + channel of `count` channels from `first` on, then zeros.
    #[inline(always)]
    fn shift(&self, first: usize, count: usize) -> Lanes<T> {
        let mut shift = [T::ZERO; LANES];
        for v in [self.bias, self.channel] {
            for (shift, &v) in shift.iter_mut().zip(v.get(first..first + count).unwrap_or(&[])) {
                *shift += v;
            }
        }
        shift
    }

    /// The same for pixels from `pixel` on.
    pub(super) fn from(self, pixel: usize, o: usize) -> Self {
        Self { residual: self.residual.get(pixel * o..).unwrap_or(&[]), ..self }
    }

    /// `pixels` counts over all images, which have `o` channels.
    pub(super) fn new(e: &Epilogue<'a, Cpu<T>>, image: usize, pixels: Range<usize>, o: usize) -> Self {
        Self {
            bias: e.bias.map_or(&[], |b| b.as_slice()),
            channel: e.channel.map_or(&[], |v| &v.as_slice()[image * o..(image + 1) * o]),
            residual: e.residual.map_or(&[], |r| &r.as_slice()[pixels.start * o..pixels.end * o]),
            scale: T::of_f32(e.scale),
        }
    }
}

simd! {
    /// `y = (tile + (bias + channel) + residual)·scale` for some columns of `y [pixels, o]`; `tile` has rows of `width`.
    pub(super) fn store[T: Element](isa, tile: &[T], width: usize, columns: Range<usize>, e: Ending<'_, T>, y: &mut [T], o: usize) {
        for (at, some) in groups(columns.len()) {
            let first = columns.start + at;
            let shift = e.shift(first, some);
            let tile = Strided { values: &tile[..width * (y.len() / o)], stride: width, offset: at };
            if e.residual.is_empty() {
                map(tile, y, (o, first), (0, some), |i, v| (v + shift[i]) * e.scale);
            } else {
                let residual = Strided { values: e.residual, stride: o, offset: first };
                map_two([tile, residual], y, (o, first), (0, some), |i, v, r| (v + shift[i] + r) * e.scale);
            }
        }
    }
}

simd! {
    /// The same where the product was stored in place: `y = (y + (bias + channel) + residual)·scale`.
    pub(super) fn finish[T: Element](isa, columns: Range<usize>, e: Ending<'_, T>, y: &mut [T], o: usize) {
        for (first, some) in groups(columns.len()) {
            let first = columns.start + first;
            let shift = e.shift(first, some);
            if e.residual.is_empty() {
                change(y, o, (first, some), |i, v| (v + shift[i]) * e.scale);
            } else {
                let residual = Strided { values: e.residual, stride: o, offset: first };
                change_with(residual, y, o, (first, some), |i, v, r| (v + shift[i] + r) * e.scale);
            }
        }
    }
}

/// Asks for the memory of some columns of pixels, which will be stored soon.
pub(super) fn fetch<T: Element>(y: &[T], o: usize, columns: &Range<usize>) {
    #[cfg(target_arch = "x86_64")]
    for pixel in y.chunks_exact(o) {
        for line in pixel[columns.clone()].chunks(64 / size_of::<T>()) {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            // SAFETY: a hint, for an address within the slice.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(line.as_ptr().cast()) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (y, o, columns);
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn runs_hold_every_pixel_once() {
        for (line, pitch, lines) in [(7, 9, 5), (16, 18, 16), (1, 2, 3), (33, 33, 4), (4, 6, 4)] {
            let of = Lines { line, pitch, pixels: line * lines };
            let mut pixels = vec![0; of.pixels];
            for first in (0..lines * pitch).step_by(16) {
                for (row, pixel, count) in of.runs(first, 16) {
                    assert!(row + count <= 16);
                    for i in 0..count {
                        let at = first + row + i;
                        assert_eq!(pixel + i, at / pitch * line + at % pitch);
                        pixels[pixel + i] += 1;
                    }
                }
            }
            assert!(pixels.iter().all(|&n| n == 1), "{of:?}");
        }
    }
}
