use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, Tensor, View};

use super::convolution::Convolution;
use super::cut;
use super::weights::Weights;
use crate::conv::cpu::Sizes;
use crate::conv::cpu::direct::tile::Micro;
use crate::conv::cpu::store::{Ending, finish};
use crate::operand::cpu::{Cut, Rows};
use crate::operand::{Epilogue, Operand, Output};
use crate::{KernelError, statistics};

pub(in crate::conv::cpu) fn conv<T: Element>(
    cpu: &Cpu<T>,
    s: &Sizes,
    x: &Operand<'_, Cpu<T>>,
    w: View<'_, Cpu<T>>,
    e: &Epilogue<'_, Cpu<T>>,
) -> Result<Output<Cpu<T>>, KernelError> {
    let rows = Rows::new(cpu, x);
    let weights = Weights::new(Micro::new::<T>(cpu.isa()), s, w, false);
    let (part, images) = cut::rows_and_images([s.n, s.h, s.w], s.c, cpu.threads());
    let cut = Cut::fixed(s.n, s.h, part, images);
    let convolution = Convolution::new(cpu, &rows, weights, &cut, s.nanoseconds());
    let mut y = Tensor::alloc(cpu, [s.n, s.h, s.w, s.o])?;
    let statistics_len = if e.statistics { 2 * s.o } else { 0 };
    let mut partial = cpu.scratch(s.n * cut.parts() * statistics_len);
    let (y_out, partial_out) = (DisjointMut::new(y.as_mut_slice()), DisjointMut::new(&mut partial));
    cpu.parallel(cut.tasks(), s.nanoseconds(), |task| {
        let block = cut::block(&cut, task, s.w);
        let row = s.w * s.o;
        let start = (block.images.start * s.h + block.rows.start) * row;
        let len = block.images.len() * block.rows.len() * row;
        // SAFETY: tasks have different images or rows.
        let y = unsafe { y_out.part(start..start + len) };
        convolution.block(cpu, &block, y, |image, rows, columns, y| {
            let at = (image * s.h + rows.start) * row;
            let ending = Ending::new(e, image, at / s.o..at / s.o + rows.len() * s.w, s.o);
            finish(cpu.isa(), columns, ending, y, s.o);
        });
        if e.statistics {
            for (image, y) in block.images.zip(y.chunks_exact(block.rows.len() * row)) {
                let at = (image * cut.parts() + block.rows.start / part) * statistics_len;
                // SAFETY: each image's part has its own.
                let out = unsafe { partial_out.part(at..at + statistics_len) };
                statistics::cpu::of_pixels(cpu.isa(), y, s.o, out);
            }
        }
    });
    let statistics = if e.statistics {
        let mut out = Tensor::alloc(cpu, [s.n, s.o, 2])?;
        statistics::cpu::merge_images(
            &partial,
            s.o,
            cut.parts(),
            |part| cut.rows_of(part..part + 1).len() * s.w,
            out.as_mut_slice(),
        );
        Some(out)
    } else {
        None
    };
    Ok(Output { y, statistics })
}
