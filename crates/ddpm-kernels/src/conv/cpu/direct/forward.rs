use std::ops::Range;

use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, Tensor, View, simd};

use super::pack::Packed;
use super::tile::{self, Micro, Segment, chunks};
use crate::conv::cpu::Sizes;
use crate::operand::cpu::Rows;
use crate::operand::{Epilogue, Operand, Output};
use crate::{KernelError, statistics};

pub(in crate::conv::cpu) fn conv<T: Element>(
    cpu: &Cpu<T>,
    s: &Sizes,
    x: &Operand<'_, Cpu<T>>,
    w: View<'_, Cpu<T>>,
    e: &Epilogue<'_, Cpu<T>>,
) -> Result<Output<Cpu<T>>, KernelError> {
    let g = s.g;
    let rows = Rows::new(cpu, x);
    let micro = Micro::new::<T>(cpu.isa());
    let weights = w.as_slice();
    let packed = Packed::new(cpu, micro, g.kernel * g.kernel * s.c, s.o, |k, o| weights[k * s.o + o]);
    let mut y = Tensor::alloc(cpu, [s.n, s.out_h, s.out_w, s.o])?;
    // a dense layer has one pixel an image: its images are as good as pixels, unless something differs between them
    let dense = s.h * s.w == 1 && g.kernel == 1 && x.norm.is_none() && x.dropout.is_none() && e.channel.is_none();
    let (images, height) = if dense { (1, s.n) } else { (s.n, s.out_h) };
    let step = if dense { s.n } else { s.task_rows() };
    let tasks = height.div_ceil(step);
    let columns = s.w + g.before() + g.after();
    let segments: Vec<_> = (0..g.kernel)
        .map(|ky| Segment { a: ky * columns * s.c, b: ky * g.kernel * s.c, len: g.kernel * s.c })
        .collect();
    let chunks = chunks(&segments);
    let statistics_len = if e.statistics { 2 * s.o } else { 0 };
    let mut partial = cpu.scratch(images * tasks * statistics_len);
    let (y_out, partial_out) = (DisjointMut::new(y.as_mut_slice()), DisjointMut::new(&mut partial));
    cpu.parallel(images * tasks, s.nanoseconds(), |task| {
        let (image, first) = (task / tasks, task % tasks * step);
        let last = (first + step).min(height);
        // the operand's rows that the result's rows first..last read
        let from = (first * g.stride) as isize - g.before() as isize;
        let count = (last - first - 1) * g.stride + g.kernel;
        let scratch;
        let a: &[T] = if rows.is_plain() && g.kernel == 1 && g.stride == 1 {
            &rows.first_part()[(image * height + first) * s.w * s.c..(image * height + last) * s.w * s.c]
        } else {
            let mut value = cpu.scratch(count * columns * s.c);
            if dense {
                for image in first..last {
                    let at = (image - first) * s.c;
                    rows.padded(image, 0..1, (0, 1), 0..s.c, &mut value[at..at + s.c]);
                }
            } else {
                rows.padded(image, from..from + count as isize, (g.before(), columns), 0..s.c, &mut value);
            }
            scratch = value;
            &scratch
        };
        let pixels = (image * height + first) * s.out_w..(image * height + last) * s.out_w;
        // SAFETY: tasks have different images or rows.
        let y = unsafe { y_out.part(pixels.start * s.o..pixels.end * s.o) };
        // without taps pixels of all rows follow each other; with them only those of one row do
        let (lines, line) = if g.kernel == 1 && g.stride == 1 { (1, pixels.len()) } else { (last - first, s.out_w) };
        let mut tile = cpu.scratch(pixels.len() * 2 * micro.lanes);
        for panel in packed.panels() {
            let starts = (0..lines).map(|row| row * g.stride * columns * s.c);
            tile::product(micro, (a, g.stride * s.c), &starts, line, &chunks, panel, &mut tile);
            let columns = panel.first..panel.first + panel.columns;
            let bias = e.bias.map_or(&[][..], |b| &b.as_slice()[columns.clone()]);
            let channel = e.channel.map_or(&[][..], |v| &v.as_slice()[image * s.o..][columns.clone()]);
            let residual = e.residual.map_or(&[][..], |r| &r.as_slice()[pixels.start * s.o..pixels.end * s.o]);
            store(cpu.isa(), &tile, panel.width, columns, bias, channel, residual, T::of_f32(e.scale), y, s.o);
        }
        if e.statistics {
            // SAFETY: each task has its own part.
            let out = unsafe { partial_out.part(task * statistics_len..(task + 1) * statistics_len) };
            statistics::cpu::of_pixels(cpu.isa(), y, s.o, out);
        }
    });
    let statistics = if e.statistics && !dense {
        let mut out = Tensor::alloc(cpu, [s.n, s.o, 2])?;
        let pixels = |task: usize| step.min(height - task * step) * s.out_w;
        statistics::cpu::merge_images(&partial, s.o, tasks, pixels, out.as_mut_slice());
        Some(out)
    } else if e.statistics {
        Some(statistics::cpu::channels(cpu, y.view())?)
    } else {
        None
    };
    Ok(Output { y, statistics })
}

simd! {
    /// The epilogue of a panel's product: `y = (tile + bias + channel + residual)·scale` for some columns of `y [rows, o]`.
    fn store[T: Element](isa, tile: &[T], width: usize, columns: Range<usize>, bias: &[T], channel: &[T], residual: &[T], scale: T, y: &mut [T], o: usize) {
        let (first, count) = (columns.start, columns.len());
        for (row, y) in y.chunks_exact_mut(o).enumerate() {
            let y = &mut y[first..first + count];
            y.copy_from_slice(&tile[row * width..][..count]);
            let residual = if residual.is_empty() { residual } else { &residual[row * o + first..][..count] };
            finish_row(y, bias, channel, residual, scale);
        }
    }
}

simd! {
    /// The epilogue where the product was stored in place: `y = (y + bias + channel + residual)·scale` for some columns of `y [rows, o]`.
    pub(in crate::conv::cpu) fn finish[T: Element](isa, columns: Range<usize>, bias: &[T], channel: &[T], residual: &[T], scale: T, y: &mut [T], o: usize) {
        for (row, y) in y.chunks_exact_mut(o).enumerate() {
            let residual = if residual.is_empty() { residual } else { &residual[row * o..][columns.clone()] };
            finish_row(&mut y[columns.clone()], bias, channel, residual, scale);
        }
    }
}

/// What an epilogue adds to some columns of one pixel; what is empty is not there.
#[inline(always)]
fn finish_row<T: Element>(y: &mut [T], bias: &[T], channel: &[T], residual: &[T], scale: T) {
    for added in [bias, channel, residual] {
        if !added.is_empty() {
            for (y, &add) in y.iter_mut().zip(added) {
                *y += add;
            }
        }
    }
    if scale != T::ONE {
        for y in y {
            *y *= scale;
        }
    }
}
