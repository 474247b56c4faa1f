use std::ops::Range;

use ddpm_tensor::{Cpu, Element, View};

use super::pack::Packed;
use super::tile::{self, Micro, Segment, chunks};
use crate::conv::Geometry;
use crate::conv::cpu::{Sizes, reached};
use crate::operand::Operand;
use crate::operand::cpu::{Cut, Rows, pulled};
use crate::{KernelError, Pulled};

/// Zeros around dy: a tap reaches at most two pixels back and one ahead.
const BEFORE: usize = 2;
const AROUND: usize = 4;

/// What reaches the operand's pixel `(y, x)`: dy's pixels in a padded image whose first row is dy's row `first`.
fn segments(g: Geometry, (y, x): (usize, usize), first: isize, columns: usize, o: usize) -> Vec<Segment> {
    let taps = g.kernel * g.kernel;
    let mut segments: Vec<Segment> = Vec::with_capacity(taps);
    // taps from the last to the first: dy's pixels from left to right
    let mut across: Vec<_> = reached(g, x).collect();
    across.reverse();
    for (ky, at_y) in reached(g, y) {
        for &(kx, at_x) in &across {
            let a = ((at_y - first) as usize * columns + (at_x + BEFORE as isize) as usize) * o;
            let b = (taps - 1 - (ky * g.kernel + kx)) * o;
            match segments.last_mut() {
                Some(last) if last.a + last.len == a && last.b + last.len == b => last.len += o,
                _ => segments.push(Segment { a, b, len: o }),
            }
        }
    }
    segments
}

pub(in crate::conv::cpu) fn input_grad<T: Element>(
    cpu: &Cpu<T>,
    s: &Sizes,
    dy: View<'_, Cpu<T>>,
    w: View<'_, Cpu<T>>,
    x: &Operand<'_, Cpu<T>>,
) -> Result<Pulled<Cpu<T>>, KernelError> {
    let g = s.g;
    let rows = Rows::new(cpu, x);
    let micro = Micro::new::<T>(cpu.isa());
    // right operand: for each tap, from the last to the first (so that a row's taps follow dy's pixels), O by C
    let taps = g.kernel * g.kernel;
    let packed = Packed::new(cpu, micro, w, "direct, turned", (taps * s.o, s.c), |w, k, c| {
        let (tap, o) = (taps - 1 - k / s.o, k % s.o);
        w[(tap * s.c + c) * s.o + o]
    });
    let columns = s.out_w + AROUND;
    let enlarged = if rows.nearest_2x { 2 } else { 1 };
    let cut = Cut::by_rows(s.n, rows.stored[1], rows.task_rows());
    pulled(cpu, &rows, cut, s.nanoseconds(), |images: Range<usize>, stored: Range<usize>, dv: &mut [T]| {
        let image = images.start;
        let value = stored.start * enlarged..stored.end * enlarged;
        // dy's rows that reach these rows of the operand, with zeros around
        let first = reached(g, value.start).chain(reached(g, value.start + 1)).map(|(_, at)| at).min().unwrap_or(0);
        let last =
            reached(g, value.end - 1).chain(reached(g, value.end.max(2) - 2)).map(|(_, at)| at).max().unwrap_or(0);
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
        // with a stride, pixels of the operand fall into phases that different taps reach
        for phase_y in 0..g.stride.min(value.len()) {
            for phase_x in 0..g.stride.min(s.w) {
                let segments = segments(g, (value.start + phase_y, phase_x), first, columns, s.o);
                let chunks = chunks(&segments);
                let (lines, pixels) = ((value.len() - phase_y).div_ceil(g.stride), (s.w - phase_x).div_ceil(g.stride));
                let mut tile = cpu.scratch(lines * pixels * 2 * micro.lanes);
                for panel in packed.panels() {
                    let starts = (0..lines).map(|line| line * columns * s.o);
                    tile::product(micro, (&left, s.o), &starts, pixels, &chunks, panel, &mut tile);
                    for (i, from) in tile.chunks_exact(panel.width).take(lines * pixels).enumerate() {
                        let (y, x) = (i / pixels * g.stride + phase_y, i % pixels * g.stride + phase_x);
                        dv[(y * s.w + x) * s.c + panel.first..][..panel.columns]
                            .copy_from_slice(&from[..panel.columns]);
                    }
                }
            }
        }
    })
}
