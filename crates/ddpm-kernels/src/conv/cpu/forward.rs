use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, Tensor, View, simd};

use super::pack::Packed;
use super::tile::{Micro, Segment, Tile, chunks};
use super::{Geometry, Sizes};
use crate::operand::cpu::Rows;
use crate::operand::{Epilogue, Operand, Output};
use crate::{KernelError, statistics};

pub(crate) fn conv<T: Element>(
    cpu: &Cpu<T>,
    x: &Operand<'_, Cpu<T>>,
    w: View<'_, Cpu<T>>,
    g: Geometry,
    e: &Epilogue<'_, Cpu<T>>,
) -> Result<Output<Cpu<T>>, KernelError> {
    let s = Sizes::new("conv", x, Some(w), w.shape().nhwc()[3], g)?;
    e.check("conv", [s.n, s.out_h, s.out_w, s.o])?;
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
        let mut tile = [T::ZERO; 12 * 32];
        for panel in packed.panels() {
            for row in 0..lines {
                for (at, height) in micro.heights(line) {
                    let a_first = (row * g.stride * columns + at * g.stride) * s.c;
                    for (i, chunk) in chunks.iter().enumerate() {
                        debug_assert!(
                            a_first
                                + (height - 1) * g.stride * s.c
                                + chunk.iter().map(|s| s.a + s.len).max().unwrap_or(0)
                                <= a.len()
                        );
                        let t = Tile {
                            a: &raw const a[a_first],
                            a_row: g.stride * s.c,
                            a_k: 1,
                            b: panel.values.as_ptr(),
                            b_row: panel.width,
                            out: tile.as_mut_ptr(),
                            out_row: panel.width,
                        };
                        // SAFETY: the rows' taps lie in `a` (asserted in debug builds), the panel has K rows, the tile fits.
                        unsafe { micro.run(height, panel.vectors, chunk, t, i > 0) };
                    }
                    let pixel = row * line + at;
                    let part = |v: View<'_, Cpu<T>>, at: usize| {
                        at + panel.first..(at + panel.first + panel.columns).min(v.shape().len())
                    };
                    let bias = e.bias.map_or(&[][..], |b| &b.as_slice()[part(b, 0)]);
                    let channel = e.channel.map_or(&[][..], |v| &v.as_slice()[part(v, image * s.o)]);
                    let residual = e.residual.map_or(&[][..], |r| {
                        &r.as_slice()[(pixels.start + pixel) * s.o..(pixels.start + pixel + height) * s.o]
                    });
                    let scale = T::of_f32(e.scale);
                    let y = &mut y[pixel * s.o..(pixel + height) * s.o];
                    store(
                        cpu.isa(),
                        &tile,
                        panel.width,
                        (panel.first, panel.columns),
                        bias,
                        channel,
                        residual,
                        scale,
                        y,
                        s.o,
                    );
                }
            }
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
    /// The epilogue of a tile: `y = (tile + bias + channel + residual)·scale` for some columns of `y [rows, o]`.
    fn store[T: Element](isa, tile: &[T], width: usize, columns: (usize, usize), bias: &[T], channel: &[T], residual: &[T], scale: T, y: &mut [T], o: usize) {
        let (first, count) = columns;
        for (row, y) in y.chunks_exact_mut(o).enumerate() {
            let from = &tile[row * width..][..count];
            let y = &mut y[first..first + count];
            y.copy_from_slice(from);
            if !bias.is_empty() {
                let bias = &bias[..count];
                for i in 0..count {
                    y[i] += bias[i];
                }
            }
            if !channel.is_empty() {
                let channel = &channel[..count];
                for i in 0..count {
                    y[i] += channel[i];
                }
            }
            if !residual.is_empty() {
                let residual = &residual[row * o + first..][..count];
                for i in 0..count {
                    y[i] += residual[i];
                }
            }
            if scale != T::ONE {
                for v in y {
                    *v *= scale;
                }
            }
        }
    }
}
