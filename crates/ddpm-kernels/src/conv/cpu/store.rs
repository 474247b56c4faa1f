//! The epilogue of a panel's product.

use std::ops::Range;

use ddpm_tensor::{Cpu, Element, Isa, simd};

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
    /// `pixels` counts over all images, which have `o` channels.
    pub(super) fn new(e: &Epilogue<'a, Cpu<T>>, image: usize, pixels: Range<usize>, o: usize) -> Self {
        Self {
            bias: e.bias.map_or(&[], |b| b.as_slice()),
            channel: e.channel.map_or(&[], |v| &v.as_slice()[image * o..(image + 1) * o]),
            residual: e.residual.map_or(&[], |r| &r.as_slice()[pixels.start * o..pixels.end * o]),
            scale: T::of_f32(e.scale),
        }
    }

    /// `y = (tile + bias + channel + residual)·scale` for some columns of `y [pixels, o]`; `tile` has rows of `width`.
    pub(super) fn store(
        self,
        isa: Isa,
        tile: &[T],
        width: usize,
        lines: Lines,
        columns: Range<usize>,
        y: &mut [T],
        o: usize,
    ) {
        let some = |v: &'a [T]| if v.is_empty() { v } else { &v[columns.clone()] };
        let ending = Self { bias: some(self.bias), channel: some(self.channel), ..self };
        store(isa, tile, width, lines, columns, ending, y, o);
    }
}

simd! {
    fn store[T: Element](isa, tile: &[T], width: usize, lines: Lines, columns: Range<usize>, e: Ending<'_, T>, y: &mut [T], o: usize) {
        let (first, count) = (columns.start, columns.len());
        for (line, y) in y.chunks_mut(lines.line * o).enumerate() {
            let tile = &tile[line * lines.pitch * width..];
            for (x, (y, from)) in y.chunks_exact_mut(o).zip(tile.chunks_exact(width)).enumerate() {
                let y = &mut y[first..first + count];
                y.copy_from_slice(&from[..count]);
                if !e.bias.is_empty() {
                    let bias = &e.bias[..count];
                    for i in 0..count {
                        y[i] += bias[i];
                    }
                }
                if !e.channel.is_empty() {
                    let channel = &e.channel[..count];
                    for i in 0..count {
                        y[i] += channel[i];
                    }
                }
                if !e.residual.is_empty() {
                    let residual = &e.residual[(line * lines.line + x) * o + first..][..count];
                    for i in 0..count {
                        y[i] += residual[i];
                    }
                }
                if e.scale != T::ONE {
                    for v in y {
                        *v *= e.scale;
                    }
                }
            }
        }
    }
}
