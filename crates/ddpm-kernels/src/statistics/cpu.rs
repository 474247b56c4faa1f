use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, Tensor, View, simd};

use crate::KernelError;
use crate::error::expect;
use crate::lanes::{LANES, groups};

/// Elements of a task: some rows of one image.
const TASK_ELEMENTS: usize = 1 << 14;

simd! {
    /// Mean and M2 of each channel over some pixels: `out` is `[2][C]`.
    pub(crate) fn of_pixels[T: Element](isa, x: &[T], c: usize, out: &mut [T]) {
        let (means, m2s) = out.split_at_mut(c);
        let count = T::of((x.len() / c) as f64);
        for (first, some) in groups(c) {
            let mut mean = [T::ZERO; LANES];
            each_pixel(x, c, first, some, |i, x| mean[i] += x);
            for m in &mut mean {
                *m = *m / count;
            }
            let mut m2 = [T::ZERO; LANES];
            each_pixel(x, c, first, some, |i, x| {
                let d = x - mean[i];
                m2[i] = d.fma(d, m2[i]);
            });
            means[first..first + some].copy_from_slice(&mean[..some]);
            m2s[first..first + some].copy_from_slice(&m2[..some]);
        }
    }
}

/// Calls `f(i, x)` for 16 (or the `count` last) channels from `first` on of each pixel.
#[inline(always)]
fn each_pixel<T: Element>(x: &[T], c: usize, first: usize, count: usize, mut f: impl FnMut(usize, T)) {
    for pixel in x.chunks_exact(c) {
        let x = &pixel[first..];
        if let (LANES, Some(x)) = (count, x.first_chunk::<LANES>()) {
            for (i, &x) in x.iter().enumerate() {
                f(i, x);
            }
        } else {
            for (i, &x) in x[..count].iter().enumerate() {
                f(i, x);
            }
        }
    }
}

/// Merges the statistics of parts of an image, `parts[part] = ([2][C], pixels)`, in order (Chan et al. 1983, eq. 2.1): `out [C, 2]`.
pub(crate) fn merge<'a, T: Element>(parts: impl Iterator<Item = (&'a [T], usize)>, c: usize, out: &mut [T]) {
    out.fill(T::ZERO);
    let mut count = 0usize;
    for (part, pixels) in parts {
        let total = count + pixels;
        let (share, weight) = (pixels as f64 / total as f64, count as f64 * pixels as f64 / total as f64);
        let (share, weight) = (T::of(share), T::of(weight));
        for i in 0..c {
            let delta = part[i] - out[2 * i];
            out[2 * i] = delta.fma(share, out[2 * i]);
            out[2 * i + 1] += (delta * delta).fma(weight, part[c + i]);
        }
        count = total;
    }
}

pub(crate) fn channels<T: Element>(cpu: &Cpu<T>, x: View<'_, Cpu<T>>) -> Result<Tensor<Cpu<T>>, KernelError> {
    let [n, h, w, c] = x.shape().nhwc();
    if x.shape().is_empty() {
        return Ok(Tensor::zeros(cpu, [n, c, 2])?);
    }
    let step = (TASK_ELEMENTS / (w * c).max(1)).clamp(1, h.max(1));
    let tasks = h.div_ceil(step);
    let mut partial = cpu.scratch(n * tasks * 2 * c);
    let out = DisjointMut::new(&mut partial);
    cpu.parallel(n * tasks, n * h * w * c, |task| {
        let (image, first) = (task / tasks, task % tasks * step);
        let pixels = (image * h + first) * w..(image * h + (first + step).min(h)) * w;
        // SAFETY: each task has its own part.
        let out = unsafe { out.part(task * 2 * c..(task + 1) * 2 * c) };
        of_pixels(cpu.isa(), &x.as_slice()[pixels.start * c..pixels.end * c], c, out);
    });
    let mut y = Tensor::alloc(cpu, [n, c, 2])?;
    merge_images(&partial, c, tasks, |task| (step.min(h - task * step)) * w, y.as_mut_slice());
    Ok(y)
}

/// Merges `partial [N][tasks][2][C]` to `out [N, C, 2]`; `pixels(task)` are counted alike in every image.
pub(crate) fn merge_images<T: Element>(
    partial: &[T],
    c: usize,
    tasks: usize,
    pixels: impl Fn(usize) -> usize,
    out: &mut [T],
) {
    for (out, parts) in out.chunks_exact_mut(2 * c).zip(partial.chunks_exact(tasks * 2 * c)) {
        merge(parts.chunks_exact(2 * c).enumerate().map(|(task, part)| (part, pixels(task))), c, out);
    }
}

pub(crate) fn norm<T: Element>(
    cpu: &Cpu<T>,
    parts: [Option<View<'_, Cpu<T>>>; 2],
    pixels: usize,
    groups: usize,
    eps: f64,
) -> Result<Tensor<Cpu<T>>, KernelError> {
    const OPERATION: &str = "norm_statistics";
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    let sizes: Vec<_> = parts.iter().map(|p| *p.shape().dims().get(1).unwrap_or(&0)).collect();
    let c: usize = sizes.iter().sum();
    let n = parts.first().map_or(0, |p| p.shape().dims()[0]);
    for (part, &size) in parts.iter().zip(&sizes) {
        expect(OPERATION, "the channels' statistics", [n, size, 2], part.shape())?;
    }
    if groups == 0 || c == 0 || !c.is_multiple_of(groups) || pixels == 0 {
        let what = format!("{c} channels of {pixels} pixels cannot be normalised in {groups} groups");
        return Err(KernelError::Setting { operation: OPERATION, what });
    }
    let of = c / groups;
    let mut y = Tensor::alloc(cpu, [n, groups, 2])?;
    let mut image_statistics = vec![(0.0, 0.0); c];
    for (image, out) in y.as_mut_slice().chunks_exact_mut(2 * groups).enumerate() {
        let of_parts =
            parts.iter().zip(&sizes).flat_map(|(p, &s)| p.as_slice()[image * 2 * s..][..2 * s].chunks_exact(2));
        for (to, from) in image_statistics.iter_mut().zip(of_parts) {
            *to = (from[0].to_f64(), from[1].to_f64());
        }
        for (group, out) in image_statistics.chunks_exact(of).zip(out.chunks_exact_mut(2)) {
            // all channels have as many pixels: the mean of means, and M2 within plus between them
            let mean = group.iter().map(|s| s.0).sum::<f64>() / of as f64;
            let m2: f64 = group.iter().map(|s| s.1 + pixels as f64 * (s.0 - mean).powi(2)).sum();
            let variance = m2 / (of * pixels) as f64;
            out[0] = T::of(mean);
            out[1] = T::of(1.0 / (variance + eps).sqrt());
        }
    }
    Ok(y)
}
