//! The epilogue of a panel's product.

use std::ops::Range;

use ddpm_tensor::{Cpu, Element, simd};

use crate::Epilogue;

/// Where the rows of a product lie: `line` that count, then (with another `pitch`) some that do not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines {
    pub(super) line: usize,
    pub(super) pitch: usize,
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

/// Columns that are stored together.
const CHUNK: usize = 16;
/// Columns of a panel at most.
const MOST: usize = 32;

simd! {
    /// `y = (tile + (bias + channel) + residual)·scale` for some columns of `y [pixels, o]`; `tile` has rows of `width`.
    pub(super) fn store[T: Element](isa, tile: &[T], width: usize, lines: Lines, columns: Range<usize>, e: Ending<'_, T>, y: &mut [T], o: usize) {
        let (first, count) = (columns.start, columns.len());
        let mut shift = [T::ZERO; MOST];
        for v in [e.bias, e.channel] {
            for (shift, &v) in shift.iter_mut().zip(v.get(columns.clone()).unwrap_or(&[])) {
                *shift += v;
            }
        }
        let shift = (!(e.bias.is_empty() && e.channel.is_empty())).then_some(&shift[..count]);
        for (line, y) in y.chunks_mut(lines.line * o).enumerate() {
            let tile = &tile[line * lines.pitch * width..];
            let residual = e.residual.get(line * lines.line * o..).unwrap_or(&[]);
            for (x, (y, from)) in y.chunks_exact_mut(o).zip(tile.chunks_exact(width)).enumerate() {
                let (y, from) = (&mut y[first..first + count], &from[..count]);
                let residual = residual.get(x * o + first..x * o + first + count);
                let (y_chunks, y_rest) = y.as_chunks_mut::<CHUNK>();
                let (from_chunks, from_rest) = from.as_chunks::<CHUNK>();
                let mut at = 0;
                for (y, from) in y_chunks.iter_mut().zip(from_chunks) {
                    *y = end(*from, shift.and_then(|v| v[at..].first_chunk()), residual.and_then(|v| v[at..].first_chunk()), e.scale);
                    at += CHUNK;
                }
                for (y, &from) in y_rest.iter_mut().zip(from_rest) {
                    [*y] = end([from], shift.and_then(|v| v[at..].first_chunk()), residual.and_then(|v| v[at..].first_chunk()), e.scale);
                    at += 1;
                }
            }
        }
    }
}

#[inline(always)]
fn end<T: Element, const N: usize>(
    mut v: [T; N],
    shift: Option<&[T; N]>,
    residual: Option<&[T; N]>,
    scale: T,
) -> [T; N] {
    for add in [shift, residual].into_iter().flatten() {
        for i in 0..N {
            v[i] += add[i];
        }
    }
    if scale != T::ONE {
        for v in &mut v {
            *v *= scale;
        }
    }
    v
}
