use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, Tensor, View};

use super::Engine;
use super::left::Left;
use super::unit::SIDE;
use super::weights::Weights;
use crate::conv::cpu::Sizes;
use crate::conv::cpu::store::{Ending, Lines, fetch, store};
use crate::operand::cpu::Rows;
use crate::operand::{Epilogue, Operand, Output};
use crate::{KernelError, statistics};

pub(in crate::conv::cpu) fn conv<T: Element>(
    engine: Engine,
    cpu: &Cpu<T>,
    s: &Sizes,
    x: &Operand<'_, Cpu<T>>,
    w: View<'_, Cpu<T>>,
    e: &Epilogue<'_, Cpu<T>>,
) -> Result<Output<Cpu<T>>, KernelError> {
    let g = s.g;
    let rows = Rows::new(cpu, x);
    let weights = Weights::of_outputs(cpu, engine.parts(), w);
    let mut y = Tensor::alloc(cpu, [s.n, s.out_h, s.out_w, s.o])?;
    let cut = super::cut(cpu, s, (s.out_h, s.out_w), s.c * g.stride * g.stride + 2 * SIDE);
    let columns = (s.w + g.before() + g.after()).next_multiple_of(g.stride);
    let statistics_len = if e.statistics { 2 * s.o } else { 0 };
    let mut partial = cpu.scratch(s.n * cut.parts() * statistics_len);
    let (y_out, partial_out) = (DisjointMut::new(y.as_mut_slice()), DisjointMut::new(&mut partial));
    cpu.parallel(cut.tasks(), s.nanoseconds() / super::FASTER, |task| {
        let (images, parts) = cut.task(task);
        let lines = cut.rows_of(parts.clone());
        // the operand's rows that the result's rows read; with a stride even ones first, then odd ones, so that a step in
        // either direction is the same number of pixels for every row of a tile
        let from = (lines.start * g.stride) as isize - g.before() as isize;
        let count = (lines.len() - 1) * g.stride + g.kernel;
        let half = count.div_ceil(g.stride);
        let image_rows = half * g.stride;
        let taps: Vec<_> = (0..g.kernel * g.kernel)
            .map(|tap| {
                let (ky, kx) = (tap / g.kernel, tap % g.kernel);
                ((ky % g.stride * half + ky / g.stride) * columns + kx, tap)
            })
            .collect();
        // without taps pixels of all rows follow each other; with them rows are `pitch` apart
        let pitch = columns / g.stride;
        let of_image = ((lines.len() - 1) * pitch + s.out_w).div_ceil(SIDE);
        let slack = (of_image * SIDE * g.stride + 2 * columns + 2).saturating_sub(half * columns);
        let mut left = Left::new(cpu, engine.parts(), s.c, images.len() * image_rows, columns, slack);
        let strip = super::strip_rows(columns * s.c);
        let mut row = cpu.scratch(strip * columns * s.c);
        for (i, image) in images.clone().enumerate() {
            super::strips(from, count, strip, |first, strip| {
                let values = &mut row[..strip.len() * columns * s.c];
                rows.padded(image, strip, (g.before(), columns), 0..s.c, values);
                if g.stride == 1 {
                    left.fill(cpu, values, s.c, i * image_rows + first);
                    return;
                }
                for (j, values) in values.chunks_exact(columns * s.c).enumerate() {
                    let r = first + j;
                    left.fill(cpu, values, s.c, i * image_rows + r % g.stride * half + r / g.stride);
                }
            });
        }
        let starts: Vec<_> = (0..images.len())
            .flat_map(|i| (0..of_image).map(move |t| i * image_rows * columns + t * SIDE * g.stride))
            .collect();
        let tiles = engine.tiles();
        let pixels = lines.start * s.out_w..lines.end * s.out_w;
        let at = |image: usize| image * s.out_h * s.out_w;
        let counting = Lines { line: s.out_w, pitch, pixels: pixels.len() };
        // SAFETY: tasks have different images or rows; several images are whole.
        let y = unsafe { y_out.part((at(images.start) + pixels.start) * s.o..(at(images.end - 1) + pixels.end) * s.o) };
        // a tile's image and runs of pixels that count, by their place in `y`
        let runs = |tile: usize| {
            let (i, first) = (tile / of_image, tile % of_image * SIDE);
            counting
                .runs(first, SIDE)
                .map(move |(row, pixel, count)| (i, row, pixel, at(i) + pixel..at(i) + pixel + count))
        };
        for panel in weights.panels() {
            let (width, columns) = (panel.width(), panel.first..panel.first + panel.columns);
            let steps = left.steps(&taps, &panel);
            left.product(&tiles, (&starts, g.stride), &steps, &panel, |tile, numbers| {
                for (i, row, pixel, run) in runs(tile) {
                    let y = &mut y[run.start * s.o..run.end * s.o];
                    let Some(numbers) = numbers else {
                        fetch(y, s.o, &columns);
                        continue;
                    };
                    let image = images.start + i;
                    let pixels = at(image) + pixels.start..at(image) + pixels.end;
                    let ending = Ending::new(e, image, pixels, s.o).from(pixel, s.o);
                    store(cpu.isa(), &numbers[row * width..], width, columns.clone(), ending, y, s.o);
                }
            });
        }
        drop(tiles);
        if e.statistics {
            for (image, part) in images.clone().flat_map(|image| parts.clone().map(move |part| (image, part))) {
                let rows = cut.rows_of(part..part + 1);
                let first = (at(image) + rows.start * s.out_w) - (at(images.start) + pixels.start);
                let y = &y[first * s.o..(first + rows.len() * s.out_w) * s.o];
                let start = (image * cut.parts() + part) * statistics_len;
                // SAFETY: each part of an image has its own statistics.
                let out = unsafe { partial_out.part(start..start + statistics_len) };
                statistics::cpu::of_pixels(cpu.isa(), y, s.o, out);
            }
        }
    });
    let statistics = if e.statistics {
        let mut out = Tensor::alloc(cpu, [s.n, s.o, 2])?;
        let pixels = |part: usize| cut.rows_of(part..part + 1).len() * s.out_w;
        statistics::cpu::merge_images(&partial, s.o, cut.parts(), pixels, out.as_mut_slice());
        Some(out)
    } else {
        None
    };
    Ok(Output { y, statistics })
}
