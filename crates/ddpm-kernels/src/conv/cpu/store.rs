//! The epilogue of a panel's product.

use std::ops::Range;

use ddpm_tensor::{Cpu, Element, simd};

use crate::Epilogue;
use crate::lanes::{LANES, Strided, groups, map};

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

simd! {
    /// `y = (tile + (bias + channel) + residual)·scale` for some columns of `y [pixels, o]`; `tile` has rows of `width`.
    pub(super) fn store[T: Element](isa, tile: &[T], width: usize, lines: Lines, columns: Range<usize>, e: Ending<'_, T>, y: &mut [T], o: usize) {
        for (at, some) in groups(columns.len()) {
            let first = columns.start + at;
            let mut shift = [T::ZERO; LANES];
            for v in [e.bias, e.channel] {
                for (shift, &v) in shift.iter_mut().zip(v.get(first..first + some).unwrap_or(&[])) {
                    *shift += v;
                }
            }
            let stored = |i: usize, v: T| (v + shift[i]) * e.scale;
            for (line, y) in y.chunks_mut(lines.line * o).enumerate() {
                let tile = &tile[line * lines.pitch * width..];
                let tile = Strided { values: &tile[..width * (y.len() / o)], stride: width, offset: at };
                if e.residual.is_empty() {
                    map(tile, y, (o, first), (0, some), stored);
                } else {
                    let residual = &e.residual[line * lines.line * o..];
                    let rows = tile.values.chunks_exact(width).zip(y.chunks_exact_mut(o).zip(residual.chunks_exact(o)));
                    for (from, (y, residual)) in rows {
                        let (from, y, residual) = (&from[at..], &mut y[first..], &residual[first..]);
                        let stored = |i: usize, v: T, r: T| (v + shift[i] + r) * e.scale;
                        if let (LANES, Some(from), Some(y), Some(residual)) =
                            (some, from.first_chunk::<LANES>(), y.first_chunk_mut::<LANES>(), residual.first_chunk::<LANES>())
                        {
                            for i in 0..LANES {
                                y[i] = stored(i, from[i], residual[i]);
                            }
                        } else {
                            for i in 0..some {
                                y[i] = stored(i, from[i], residual[i]);
                            }
                        }
                    }
                }
            }
        }
    }
}
