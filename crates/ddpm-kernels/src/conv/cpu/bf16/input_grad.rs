use std::ops::Range;

use ddpm_tensor::{Cpu, Element, View};

use super::Engine;
use super::left::Left;
use super::unit::SIDE;
use super::weights::Weights;
use crate::conv::Geometry;
use crate::conv::cpu::store::{Ending, Lines, fetch, store};
use crate::conv::cpu::{Sizes, reached};
use crate::operand::Operand;
use crate::operand::cpu::{Rows, pulled};
use crate::{KernelError, Pulled};

/// Zeros around dy on each side: with any stride and padding a tap reaches one pixel further at most.
fn around(g: Geometry) -> usize {
    usize::from(g.kernel > 1)
}

/// dy's rows that the operand's rows read.
fn rows_reached(g: Geometry, value: &Range<usize>) -> Range<isize> {
    let rows = || value.clone().flat_map(|row| reached(g, row).map(|(_, at)| at));
    rows().min().unwrap_or(0)..rows().max().map_or(0, |last| last + 1)
}

pub(in crate::conv::cpu) fn input_grad<T: Element>(
    engine: Engine,
    cpu: &Cpu<T>,
    s: &Sizes,
    dy: View<'_, Cpu<T>>,
    w: View<'_, Cpu<T>>,
    x: &Operand<'_, Cpu<T>>,
) -> Result<Pulled<Cpu<T>>, KernelError> {
    let g = s.g;
    let rows = Rows::new(cpu, x);
    let weights = Weights::of_inputs(cpu, engine.parts(), w);
    let (around, stored_h) = (around(g), rows.stored[1]);
    let columns = s.out_w + 2 * around;
    let enlarged = if rows.nearest_2x { 2 } else { 1 };
    let cut = super::cut(
        cpu,
        s,
        (stored_h, rows.stored[2]),
        enlarged * enlarged * (s.c + s.o / (g.stride * g.stride) + 2 * SIDE),
    );
    let all = dy.as_slice();
    pulled(cpu, &rows, cut, s.nanoseconds() / super::FASTER, |images: Range<usize>, stored: Range<usize>, dv| {
        let value = stored.start * enlarged..stored.end * enlarged;
        let from = rows_reached(g, &value);
        let image_rows = from.len();
        let slack = SIDE + 3 * columns;
        let mut left = Left::new(cpu, engine.parts(), s.o, images.len() * image_rows, columns, slack);
        for (i, image) in images.clone().enumerate() {
            for (j, y) in from.clone().enumerate() {
                let row = i * image_rows + j;
                match usize::try_from(y).ok().filter(|&y| y < s.out_h) {
                    Some(y) => {
                        let from = &all[(image * s.out_h + y) * s.out_w * s.o..][..s.out_w * s.o];
                        left.fill_between(cpu, from, s.o, row, around);
                    }
                    None => left.clear(row),
                }
            }
        }
        let tiles = engine.tiles();
        let dv_len = value.len() * s.w * s.c;
        // with a stride, pixels of the operand fall into phases that different taps reach
        for phase_y in 0..g.stride.min(value.len()) {
            for phase_x in 0..g.stride.min(s.w) {
                let taps: Vec<_> = reached(g, value.start + phase_y)
                    .flat_map(|(ky, at_y)| reached(g, phase_x).map(move |(kx, at_x)| (ky, at_y, kx, at_x)))
                    .map(|(ky, at_y, kx, at_x)| {
                        let at = (at_y - from.start) as usize * columns + (at_x + around as isize) as usize;
                        (at, ky * g.kernel + kx)
                    })
                    .collect();
                let (lines, pixels) = ((value.len() - phase_y).div_ceil(g.stride), (s.w - phase_x).div_ceil(g.stride));
                let of_image = ((lines - 1) * columns + pixels).div_ceil(SIDE);
                let starts: Vec<_> = (0..images.len())
                    .flat_map(|i| (0..of_image).map(move |t| i * image_rows * columns + t * SIDE))
                    .collect();
                let counting = Lines { line: pixels, pitch: columns, pixels: lines * pixels };
                for panel in weights.panels() {
                    let steps = left.steps(&taps, &panel);
                    let (width, of_panel) = (panel.width(), panel.first..panel.first + panel.columns);
                    left.product(&tiles, (&starts, 1), &steps, &panel, |tile, numbers| {
                        let dv = &mut dv[tile / of_image * dv_len..][..dv_len];
                        for (row, pixel, count) in counting.runs(tile % of_image * SIDE, SIDE) {
                            // without a stride pixels of a run follow each other
                            match numbers.map(|numbers| &numbers[row * width..]) {
                                None if g.stride == 1 => {
                                    fetch(&dv[pixel * s.c..(pixel + count) * s.c], s.c, &of_panel);
                                }
                                None => {}
                                Some(numbers) if g.stride == 1 => {
                                    let dv = &mut dv[pixel * s.c..(pixel + count) * s.c];
                                    store(cpu.isa(), numbers, width, of_panel.clone(), Ending::NONE, dv, s.c);
                                }
                                Some(numbers) => {
                                    for (i, from) in numbers.chunks_exact(width).take(count).enumerate() {
                                        let (y, x) = ((pixel + i) / pixels, (pixel + i) % pixels);
                                        let at = (y * g.stride + phase_y) * s.w + x * g.stride + phase_x;
                                        dv[at * s.c..][of_panel.clone()].copy_from_slice(&from[..panel.columns]);
                                    }
                                }
                            }
                        }
                    });
                }
            }
        }
    })
}
