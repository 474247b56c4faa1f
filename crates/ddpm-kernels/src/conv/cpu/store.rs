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

simd! {
    /// `y = (tile + (bias + channel) + residual)·scale` for some columns of `y [pixels, o]`; `tile` has rows of `width`.
    pub(super) fn store[T: Element](isa, tile: &[T], width: usize, lines: Lines, columns: Range<usize>, e: Ending<'_, T>, y: &mut [T], o: usize) {
        for first in columns.clone().step_by(CHUNK) {
            let count = CHUNK.min(columns.end - first);
            let mut shift = [T::ZERO; CHUNK];
            for v in [e.bias, e.channel] {
                for (shift, &v) in shift.iter_mut().zip(v.get(first..first + count).unwrap_or(&[])) {
                    *shift += v;
                }
            }
            let shifted = !(e.bias.is_empty() && e.channel.is_empty());
            for (line, y) in y.chunks_mut(lines.line * o).enumerate() {
                let tile = &tile[line * lines.pitch * width + first - columns.start..];
                let residual = e.residual.get(line * lines.line * o..).unwrap_or(&[]);
                for (x, y) in y.chunks_exact_mut(o).enumerate() {
                    let (y, from) = (&mut y[first..first + count], &tile[x * width..]);
                    let residual = residual.get(x * o + first..).unwrap_or(&[]);
                    if let (Some(y), Some(from)) = (y.first_chunk_mut::<CHUNK>(), from.first_chunk::<CHUNK>()) {
                        let mut v = *from;
                        if shifted {
                            for i in 0..CHUNK {
                                v[i] += shift[i];
                            }
                        }
                        if let Some(residual) = residual.first_chunk::<CHUNK>() {
                            for i in 0..CHUNK {
                                v[i] += residual[i];
                            }
                        }
                        if e.scale != T::ONE {
                            for v in &mut v {
                                *v *= e.scale;
                            }
                        }
                        *y = v;
                    } else {
                        for (i, y) in y.iter_mut().enumerate() {
                            let mut v = from[i];
                            if shifted {
                                v += shift[i];
                            }
                            if let Some(&residual) = residual.get(i) {
                                v += residual;
                            }
                            *y = if e.scale == T::ONE { v } else { v * e.scale };
                        }
                    }
                }
            }
        }
    }
}
