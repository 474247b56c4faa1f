use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, Tensor, View};

use super::pack::Packed;
use super::tile::{self, Micro, Segment, chunks};
use crate::conv::cpu::Sizes;
use crate::conv::cpu::store::{Ending, store};
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
    let size = (g.kernel * g.kernel * s.c, s.o);
    let packed = Packed::new(cpu, micro, w, "direct", size, |w, k, o| w[k * s.o + o]);
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
        let ending = Ending::new(e, image, pixels.clone(), s.o);
        for panel in packed.panels() {
            let starts = (0..lines).map(|row| row * g.stride * columns * s.c);
            tile::product(micro, (a, g.stride * s.c), &starts, line, &chunks, panel, &mut tile);
            let columns = panel.first..panel.first + panel.columns;
            store(cpu.isa(), &tile, panel.width, columns, ending, y, s.o);
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
