use std::ops::Range;

use ddpm_tensor::{Cpu, Element, View};

use super::pack::Packed;
use super::tile::{Micro, Segment, Tile, chunks};
use super::{Geometry, Sizes};
use crate::error::expect;
use crate::operand::Operand;
use crate::operand::cpu::{Rows, pulled};
use crate::{KernelError, Pulled};

/// Zeros around dy: a tap reaches at most two pixels back and one ahead.
const BEFORE: usize = 2;
const AROUND: usize = 4;

/// Which pixels of dy reach pixels `first, first + stride, …` of one axis of the operand: (tap, dy's position for the first).
fn reach(g: Geometry, first: usize) -> impl Iterator<Item = (usize, isize)> {
    (0..g.kernel).filter_map(move |tap| {
        // operand = stride·dy + tap − before
        let offset = first as isize + g.before() as isize - tap as isize;
        (offset.rem_euclid(g.stride as isize) == 0).then(|| (tap, offset.div_euclid(g.stride as isize)))
    })
}

pub(crate) fn input_grad<T: Element>(
    cpu: &Cpu<T>,
    dy: View<'_, Cpu<T>>,
    w: View<'_, Cpu<T>>,
    g: Geometry,
    x: &Operand<'_, Cpu<T>>,
) -> Result<Pulled<Cpu<T>>, KernelError> {
    let s = Sizes::new("conv_input_grad", x, Some(w), w.shape().nhwc()[3], g)?;
    expect("conv_input_grad", "dy", [s.n, s.out_h, s.out_w, s.o], dy.shape())?;
    let rows = Rows::new(cpu, x);
    let micro = Micro::new::<T>(cpu.isa());
    let weights = w.as_slice();
    // right operand: for each tap, from the last to the first (so that a row's taps follow dy's pixels), O by C
    let taps = g.kernel * g.kernel;
    let packed = Packed::new(cpu, micro, taps * s.o, s.c, |k, c| {
        let (tap, o) = (taps - 1 - k / s.o, k % s.o);
        weights[(tap * s.c + c) * s.o + o]
    });
    let columns = s.out_w + AROUND;
    let enlarged = if rows.nearest_2x { 2 } else { 1 };
    pulled(cpu, &rows, s.nanoseconds(), |image, stored: Range<usize>, dv: &mut [T]| {
        let value = stored.start * enlarged..stored.end * enlarged;
        // dy's rows that reach these rows of the operand, with zeros around
        let first = reach(g, value.start).chain(reach(g, value.start + 1)).map(|(_, at)| at).min().unwrap_or(0);
        let last = reach(g, value.end - 1).chain(reach(g, value.end.max(2) - 2)).map(|(_, at)| at).max().unwrap_or(0);
        let mut left = cpu.scratch((last - first + 1).max(1) as usize * columns * s.o);
        let all = dy.as_slice();
        for (i, row) in left.chunks_exact_mut(columns * s.o).enumerate() {
            match usize::try_from(first + i as isize).ok().filter(|&y| y < s.out_h) {
                Some(y) => {
                    row[..BEFORE * s.o].fill(T::ZERO);
                    row[BEFORE * s.o..(BEFORE + s.out_w) * s.o]
                        .copy_from_slice(&all[(image * s.out_h + y) * s.out_w * s.o..][..s.out_w * s.o]);
                    row[(BEFORE + s.out_w) * s.o..].fill(T::ZERO);
                }
                None => row.fill(T::ZERO),
            }
        }
        let mut tile = [T::ZERO; 12 * 32];
        for (y, dv) in value.clone().zip(dv.chunks_exact_mut(s.w * s.c)) {
            for phase in 0..g.stride.min(s.w) {
                let mut segments: Vec<Segment> = Vec::with_capacity(taps);
                for (ky, at_y) in reach(g, y) {
                    // taps from the last to the first: dy's pixels from left to right
                    for (kx, at_x) in reach(g, phase).collect::<Vec<_>>().into_iter().rev() {
                        let a = ((at_y - first) as usize * columns + (at_x + BEFORE as isize) as usize) * s.o;
                        let b = (taps - 1 - (ky * g.kernel + kx)) * s.o;
                        match segments.last_mut() {
                            Some(last) if last.a + last.len == a && last.b + last.len == b => last.len += s.o,
                            _ => segments.push(Segment { a, b, len: s.o }),
                        }
                    }
                }
                let chunks = chunks(&segments);
                let pixels = (s.w - phase).div_ceil(g.stride);
                for panel in packed.panels() {
                    for (at, height) in micro.heights(pixels) {
                        for (i, chunk) in chunks.iter().enumerate() {
                            debug_assert!(
                                chunk.iter().all(|k| at * s.o + k.a + (height - 1) * s.o + k.len <= left.len())
                            );
                            let t = Tile {
                                a: &raw const left[at * s.o],
                                a_row: s.o,
                                a_k: 1,
                                b: panel.values.as_ptr(),
                                b_row: panel.width,
                                out: tile.as_mut_ptr(),
                                out_row: panel.width,
                            };
                            // SAFETY: `left` holds every pixel that is reached (asserted in debug builds); the tile fits.
                            unsafe { micro.run(height, panel.vectors, chunk, t, i > 0) };
                        }
                        for (row, from) in tile.chunks_exact(panel.width).take(height).enumerate() {
                            let pixel = (at + row) * g.stride + phase;
                            dv[pixel * s.c + panel.first..][..panel.columns].copy_from_slice(&from[..panel.columns]);
                        }
                    }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::Padding;

    #[test]
    fn taps_reach_the_pixels_that_the_forward_pass_reads() {
        for g in [Geometry::ONE, Geometry::THREE, Geometry::down(Padding::Same), Geometry::down(Padding::End)] {
            for out in 0..5isize {
                for tap in 0..g.kernel {
                    let read = out * g.stride as isize + tap as isize - g.before() as isize;
                    if let Ok(read) = usize::try_from(read) {
                        assert!(
                            reach(g, read).any(|found| found == (tap, out)),
                            "{g:?}: {out} reads {read} by tap {tap}"
                        );
                    }
                }
            }
        }
    }
}
