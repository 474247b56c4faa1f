//! Sums, rows and elementwise operations on the CPU.

use std::ops::Range;

use ddpm_tensor::cpu::CpuBuffer;
use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, Tensor, View, ViewMut, simd};

use super::{GROUP, check_indices};
use crate::KernelError;
use crate::error::expect;

/// Elements of one job of an elementwise operation.
const CHUNK: usize = 32_768;
/// Pixels that are summed from zero; the sums of such blocks are added in order.
const PIXELS: usize = 256;
/// Channels of one job of a sum over images.
const CHANNELS: usize = 512;

/// [`Backend::pixel_sums`](crate::Backend::pixel_sums).
pub(crate) fn pixel_sums<T: Element>(cpu: &Cpu<T>, x: View<'_, Cpu<T>>) -> Result<Tensor<Cpu<T>>, KernelError> {
    let [n, h, w, c] = x.shape().nhwc();
    let pixels = h * w;
    let blocks = pixels.div_ceil(PIXELS);
    let x = x.as_slice();
    let mut sums = Tensor::zeros(cpu, [n, c])?;
    let mut partial = cpu.scratch(n * blocks * c);
    let parts = DisjointMut::new(&mut partial);
    cpu.parallel(n * blocks, x.len() / 8, |job| {
        let (image, block) = (job / blocks, job % blocks);
        let first = (image * pixels + block * PIXELS) * c;
        let len = PIXELS.min(pixels - block * PIXELS) * c;
        // SAFETY: each job has a row of its own.
        let part = unsafe { parts.part(job * c..(job + 1) * c) };
        part.fill(T::ZERO);
        add_rows(cpu.isa(), &x[first..first + len], part);
    });
    if blocks * c > 0 {
        for (sums, partial) in sums.as_mut_slice().chunks_exact_mut(c).zip(partial.chunks_exact(blocks * c)) {
            add_rows(cpu.isa(), partial, sums);
        }
    }
    Ok(sums)
}

simd! {
    /// `sums[c] += Σ_rows rows[row, c]`, row after row.
    fn add_rows[T: Element](isa, rows: &[T], sums: &mut [T]) {
        if !sums.is_empty() {
            for row in rows.chunks_exact(sums.len()) {
                for (sum, &x) in sums.iter_mut().zip(row) {
                    *sum += x;
                }
            }
        }
    }
}

/// [`Backend::batch_sums`](crate::Backend::batch_sums).
pub(crate) fn batch_sums<T: Element>(
    cpu: &Cpu<T>,
    rows: View<'_, Cpu<T>>,
    grads: &mut CpuBuffer<T>,
    range: Range<usize>,
) -> Result<(), KernelError> {
    let [n, h, w, c] = rows.shape().nhwc();
    expect("batch_sums", "what is summed over images", [n, c], rows.shape())?;
    expect("batch_sums", "the range of gradients", [h * w * c], [range.len()].into())?;
    let rows = rows.as_slice();
    let mut grads = ViewMut::<Cpu<T>>::of(grads, range.start, [c])?;
    let grads = DisjointMut::new(grads.as_mut_slice());
    cpu.parallel(c.div_ceil(CHANNELS), n * c / 4, |job| {
        let own = job * CHANNELS..c.min((job + 1) * CHANNELS);
        // SAFETY: each job has channels of its own.
        let grads = unsafe { grads.part(own.clone()) };
        let mut group_sum = [T::ZERO; CHANNELS];
        let group_sum = &mut group_sum[..own.len()];
        for group in rows.chunks(GROUP * c) {
            group_sum.fill(T::ZERO);
            for row in group.chunks_exact(c) {
                add_rows(cpu.isa(), &row[own.clone()], group_sum);
            }
            add_rows(cpu.isa(), group_sum, grads);
        }
    });
    Ok(())
}

/// [`Backend::gather_rows`](crate::Backend::gather_rows).
pub(crate) fn gather_rows<T: Element>(
    cpu: &Cpu<T>,
    table: View<'_, Cpu<T>>,
    indices: &[usize],
) -> Result<Tensor<Cpu<T>>, KernelError> {
    let [rows, _, _, c] = table.shape().nhwc();
    expect("gather_rows", "the table", [rows, c], table.shape())?;
    check_indices("gather_rows", indices.len(), rows, indices)?;
    let table = table.as_slice();
    let mut out = Tensor::alloc(cpu, [indices.len(), c])?;
    for (to, &i) in out.as_mut_slice().chunks_exact_mut(c.max(1)).zip(indices) {
        to.copy_from_slice(&table[i * c..(i + 1) * c]);
    }
    Ok(out)
}

/// [`Backend::scatter_rows`](crate::Backend::scatter_rows).
pub(crate) fn scatter_rows<T: Element>(
    cpu: &Cpu<T>,
    rows: View<'_, Cpu<T>>,
    indices: &[usize],
    grads: &mut CpuBuffer<T>,
    range: Range<usize>,
) -> Result<(), KernelError> {
    let [n, _, _, c] = rows.shape().nhwc();
    expect("scatter_rows", "the rows", [n, c], rows.shape())?;
    let table_rows = range.len().checked_div(c).unwrap_or(0);
    expect("scatter_rows", "the range of gradients", [table_rows * c], [range.len()].into())?;
    check_indices("scatter_rows", n, table_rows, indices)?;
    let rows = rows.as_slice();
    let mut grads = ViewMut::<Cpu<T>>::of(grads, range.start, [range.len()])?;
    let grads = grads.as_mut_slice();
    let mut group_sum = cpu.scratch(c);
    for (rows, indices) in rows.chunks(GROUP * c.max(1)).zip(indices.chunks(GROUP)) {
        for (first, &index) in indices.iter().enumerate() {
            if indices[..first].contains(&index) {
                continue; // went with an earlier image of the group
            }
            group_sum.fill(T::ZERO);
            for (row, _) in rows.chunks_exact(c).zip(indices).filter(|&(_, &i)| i == index) {
                add_rows(cpu.isa(), row, &mut group_sum);
            }
            add_rows(cpu.isa(), &group_sum, &mut grads[index * c..(index + 1) * c]);
        }
    }
    Ok(())
}

/// [`Backend::add_scaled`](crate::Backend::add_scaled).
pub(crate) fn add_scaled<T: Element>(
    cpu: &Cpu<T>,
    y: &mut Tensor<Cpu<T>>,
    factor: f64,
    x: View<'_, Cpu<T>>,
) -> Result<(), KernelError> {
    expect("add_scaled", "x", y.shape(), x.shape())?;
    let x = x.as_slice();
    let out = DisjointMut::new(y.as_mut_slice());
    cpu.parallel(x.len().div_ceil(CHUNK), x.len() / 4, |job| {
        let own = job * CHUNK..x.len().min((job + 1) * CHUNK);
        // SAFETY: each job has a chunk of its own.
        let out = unsafe { out.part(own.clone()) };
        add_scaled_chunk(cpu.isa(), T::of(factor), &x[own], out);
    });
    Ok(())
}

simd! {
    fn add_scaled_chunk[T: Element](isa, factor: T, x: &[T], y: &mut [T]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x.fma(factor, *y);
        }
    }
}

/// [`Backend::affine`](crate::Backend::affine).
pub(crate) fn affine<T: Element>(
    cpu: &Cpu<T>,
    x: View<'_, Cpu<T>>,
    factor: f64,
    shift: f64,
) -> Result<Tensor<Cpu<T>>, KernelError> {
    let mut y = Tensor::alloc(cpu, x.shape())?;
    let x = x.as_slice();
    let out = DisjointMut::new(y.as_mut_slice());
    cpu.parallel(x.len().div_ceil(CHUNK), x.len() / 4, |job| {
        let own = job * CHUNK..x.len().min((job + 1) * CHUNK);
        // SAFETY: each job has a chunk of its own.
        let out = unsafe { out.part(own.clone()) };
        affine_chunk(cpu.isa(), T::of(factor), T::of(shift), &x[own], out);
    });
    Ok(y)
}

simd! {
    fn affine_chunk[T: Element](isa, factor: T, shift: T, x: &[T], y: &mut [T]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x.fma(factor, shift);
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
