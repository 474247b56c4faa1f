//! Operands on the CPU: whole values, and gradients of what they are made of.

mod rows;

use std::ops::Range;

use ddpm_tensor::cpu::CpuBuffer;
use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, Tensor, View, simd};

pub(crate) use self::rows::Rows;
use self::rows::{Coefficients, Strided};
use crate::error::expect;
use crate::operand::{Operand, Parts, Pulled};
use crate::{KernelError, sums};

/// Rough time to make or pull back one element, for the choice of threads.
const NS_PER_ELEMENT: usize = 2;

pub(crate) fn value<T: Element>(cpu: &Cpu<T>, x: &Operand<'_, Cpu<T>>) -> Result<Tensor<Cpu<T>>, KernelError> {
    x.check("operand_value")?;
    let rows = Rows::new(cpu, x);
    let [n, h, w, c] = rows.size();
    let mut y = Tensor::alloc(cpu, [n, h, w, c])?;
    let step = rows.task_rows();
    let tasks = h.div_ceil(step);
    let out = DisjointMut::new(y.as_mut_slice());
    cpu.parallel(n * tasks, n * h * w * c * NS_PER_ELEMENT, |task| {
        let (image, first) = (task / tasks, task % tasks * step);
        let last = (first + step).min(h);
        let range = (image * h + first) * w * c..(image * h + last) * w * c;
        // SAFETY: tasks have different images or rows.
        let out = unsafe { out.part(range) };
        rows.padded(image, first as isize..last as isize, (0, w), 0..c, out);
    });
    Ok(y)
}

pub(crate) fn pull<T: Element>(
    cpu: &Cpu<T>,
    dv: View<'_, Cpu<T>>,
    x: &Operand<'_, Cpu<T>>,
) -> Result<Pulled<Cpu<T>>, KernelError> {
    x.check("operand_pull")?;
    expect("operand_pull", "the gradient", x.size(), dv.shape())?;
    let rows = Rows::new(cpu, x);
    let [n, h, w, c] = rows.stored;
    let scale = if rows.nearest_2x { 4 } else { 1 };
    pulled(cpu, &rows, n * h * w * c * NS_PER_ELEMENT, |image, stored, dv_rows| {
        let row = scale * w * c;
        dv_rows.copy_from_slice(&dv.as_slice()[(image * h + stored.start) * row..(image * h + stored.end) * row]);
    })
}

/// Makes a [`Pulled`] from rows of the value's gradient: `make(image, stored rows, out)` fills the value's rows that belong to
/// the stored ones.
pub(crate) fn pulled<T: Element>(
    cpu: &Cpu<T>,
    rows: &Rows<'_, T>,
    nanoseconds: usize,
    make: impl Fn(usize, Range<usize>, &mut [T]) + Send + Sync,
) -> Result<Pulled<Cpu<T>>, KernelError> {
    pulled_in(cpu, rows, nanoseconds, (1, rows.task_rows()), |images, stored, dv| make(images.start, stored, dv))
}

/// The same in tasks of several whole images, or of `step` stored rows of one: `make(images, stored rows, out)`.
pub(crate) fn pulled_in<T: Element>(
    cpu: &Cpu<T>,
    rows: &Rows<'_, T>,
    nanoseconds: usize,
    (images_step, step): (usize, usize),
    make: impl Fn(Range<usize>, Range<usize>, &mut [T]) + Send + Sync,
) -> Result<Pulled<Cpu<T>>, KernelError> {
    let [n, h, w, c] = rows.stored;
    let parts = h.div_ceil(step);
    let mut g = Tensor::alloc(cpu, [n, h, w, c])?;
    let summed = if rows.norm { 2 * c } else { 0 };
    let mut partial = cpu.scratch(n * parts * summed);
    let (g_out, partial_out) = (DisjointMut::new(g.as_mut_slice()), DisjointMut::new(&mut partial));
    let scale = if rows.nearest_2x { 4 } else { 1 };
    cpu.parallel(n.div_ceil(images_step) * parts, nanoseconds, |task| {
        let (first, part) = (task / parts * images_step, task % parts);
        let images = first..(first + images_step).min(n);
        let stored = part * step..((part + 1) * step).min(h);
        let len = stored.len() * w * c;
        let mut dv = cpu.scratch(images.len() * scale * len);
        make(images.clone(), stored.clone(), &mut dv);
        for (image, dv) in images.zip(dv.chunks_exact_mut((scale * len).max(1))) {
            let start = (image * h + stored.start) * w * c;
            // SAFETY: tasks have different images or rows.
            let g = unsafe { g_out.part(start..start + len) };
            let part = image * parts + part;
            // SAFETY: each image's part has its own.
            let sums = unsafe { partial_out.part(part * summed..(part + 1) * summed) };
            sums.fill(T::ZERO);
            rows.pull(image, stored.clone(), dv, g, sums);
        }
    });
    let sums = if rows.norm {
        let mut sums = Tensor::zeros(cpu, [n, c, 2])?;
        for (out, parts) in sums.as_mut_slice().chunks_exact_mut(2 * c).zip(partial.chunks_exact(parts * summed)) {
            for part in parts.chunks_exact(summed) {
                for i in 0..c {
                    out[2 * i] += part[i];
                    out[2 * i + 1] += part[c + i];
                }
            }
        }
        Some(sums)
    } else {
        None
    };
    Ok(Pulled { g, sums })
}

type Parted<T> = (Tensor<Cpu<T>>, Option<Tensor<Cpu<T>>>);

pub(crate) fn grad<T: Element>(
    cpu: &Cpu<T>,
    x: &Operand<'_, Cpu<T>>,
    pulled: Pulled<Cpu<T>>,
    add: [Option<View<'_, Cpu<T>>>; 2],
) -> Result<Parted<T>, KernelError> {
    const OPERATION: &str = "operand_grad";
    x.check(OPERATION)?;
    let rows = Rows::new(cpu, x);
    let [n, h, w, c] = rows.stored;
    expect(OPERATION, "the pulled gradient", rows.stored, pulled.g.shape())?;
    for (add, part) in add.iter().zip(rows.parts) {
        if let Some(add) = add {
            expect(OPERATION, "the gradient to add", [n, h, w, part.channels], add.shape())?;
        }
    }
    // a single part without a norm is done already
    if matches!(x.parts, Parts::One(_)) && x.norm.is_none() {
        let mut g = pulled.g;
        if let [Some(add), _] = add {
            sums::cpu::add_scaled(cpu, &mut g, 1.0, add)?;
        }
        return Ok((g, None));
    }
    // means over each group of g and g·x̂ (both of the gradient of x̂), spread over its channels: [N, C, 2]
    let means = match (&x.norm, &pulled.sums) {
        (Some(norm), Some(sums)) => {
            expect(OPERATION, "the pulled sums", [n, c, 2], sums.shape())?;
            let mut means = Tensor::alloc(cpu, [n, 2, c])?;
            let (of, size) = (c / norm.groups, T::of((c / norm.groups * h * w) as f64));
            for image in 0..n {
                let Some(k) = rows.coefficients(image, 0..c) else { continue };
                let sums = &sums.as_slice()[image * 2 * c..][..2 * c];
                let out = &mut means.as_mut_slice()[image * 2 * c..][..2 * c];
                for group in 0..norm.groups {
                    let channels = group * of..(group + 1) * of;
                    for moment in 0..2 {
                        let mean = channels.clone().map(|i| k.gamma[i] * sums[2 * i + moment]).sum::<T>() / size;
                        out[moment * c + channels.start..moment * c + channels.end].fill(mean);
                    }
                }
            }
            Some(means)
        }
        (Some(_), None) => {
            let what = "the pulled gradient of a normalised operand has sums, these are missing".into();
            return Err(KernelError::Setting { operation: OPERATION, what });
        }
        (None, _) => None,
    };
    let mut outputs = Vec::new();
    for part in rows.parts.iter().filter(|p| p.channels > 0) {
        outputs.push(Tensor::alloc(cpu, [n, h, w, part.channels])?);
    }
    let step = rows.task_rows();
    let tasks = h.div_ceil(step);
    let out: Vec<_> = outputs.iter_mut().map(|t| DisjointMut::new(t.as_mut_slice())).collect();
    cpu.parallel(n * tasks, n * h * w * c * NS_PER_ELEMENT, |task| {
        let (image, first) = (task / tasks, task % tasks * step);
        let pixels = (image * h + first) * w..(image * h + (first + step).min(h)) * w;
        let g = &pulled.g.as_slice()[pixels.start * c..pixels.end * c];
        for (i, (part, start, overlap)) in rows.parts_of(0..c).enumerate() {
            let range = pixels.start * part.channels..pixels.end * part.channels;
            // SAFETY: tasks have different images or rows.
            let out = unsafe { out[i].part(range.clone()) };
            let g = Strided { values: g, stride: c, offset: start };
            let norm = rows.coefficients(image, overlap.clone()).zip(means.as_ref()).map(|(k, m)| {
                let m = &m.as_slice()[image * 2 * c..][..2 * c];
                (k, &m[overlap.clone()], &m[c + overlap.start..c + overlap.end])
            });
            let add = add[i].map_or(&[][..], |a| &a.as_slice()[range.clone()]);
            finish(rows.isa, &part.values[range], g, norm, add, part.channels, out);
        }
    });
    drop(out);
    let mut outputs = outputs.into_iter();
    let first = outputs.next().ok_or(KernelError::Setting { operation: OPERATION, what: "no channels".into() })?;
    Ok((first, outputs.next()))
}

simd! {
    fn finish[T: Element](isa, x: &[T], g: Strided<'_, T>, norm: Option<(Coefficients<'_, T>, &[T], &[T])>, add: &[T], count: usize, out: &mut [T]) {
        let pixels = g.values.chunks_exact(g.stride).zip(x.chunks_exact(count)).zip(out.chunks_exact_mut(count));
        for (pixel, ((all, x), out)) in pixels.enumerate() {
            let g = &all[g.offset..g.offset + count];
            if let Some((k, mean_g, mean_gx)) = norm {
                let (mean, rstd) = (&k.mean[..count], &k.rstd[..count]);
                let (mean_g, mean_gx) = (&mean_g[..count], &mean_gx[..count]);
                for i in 0..count {
                    let x_hat = (x[i] - mean[i]) * rstd[i];
                    out[i] = rstd[i] * (-x_hat).fma(mean_gx[i], g[i] - mean_g[i]);
                }
            } else {
                out.copy_from_slice(g);
            }
            if !add.is_empty() {
                let add = &add[pixel * count..][..count];
                for i in 0..count {
                    out[i] += add[i];
                }
            }
        }
    }
}

/// Gradients of γ and β, in groups of 16 images, and of the scales and shifts.
pub(crate) fn norm_param_grad<T: Element>(
    cpu: &Cpu<T>,
    x: &Operand<'_, Cpu<T>>,
    sums: View<'_, Cpu<T>>,
    grads: &mut CpuBuffer<T>,
    d_gamma: Range<usize>,
    d_beta: Range<usize>,
) -> Result<Option<Tensor<Cpu<T>>>, KernelError> {
    const OPERATION: &str = "norm_param_grad";
    x.check(OPERATION)?;
    let [n, _, _, c] = x.stored();
    expect(OPERATION, "the sums", [n, c, 2], sums.shape())?;
    let Some(norm) = &x.norm else {
        return Err(KernelError::Setting { operation: OPERATION, what: "the operand has no norm".into() });
    };
    // per image: what goes to γ and β
    let mut rows = [Tensor::alloc(cpu, [n, c])?, Tensor::alloc(cpu, [n, c])?];
    let mut d_scale_shift = norm.scale_shift.map(|s| Tensor::alloc(cpu, s.shape())).transpose()?;
    for image in 0..n {
        let sums = &sums.as_slice()[image * 2 * c..][..2 * c];
        for i in 0..c {
            let (zero, one) = (sums[2 * i], sums[2 * i + 1]);
            let mut factor = T::ONE;
            if let (Some(s), Some(d)) = (norm.scale_shift, &mut d_scale_shift) {
                factor += s.as_slice()[image * 2 * c + i];
                let d = &mut d.as_mut_slice()[image * 2 * c..][..2 * c];
                d[i] = norm.gamma.as_slice()[i].fma(one, norm.beta.as_slice()[i] * zero);
                d[c + i] = zero;
            }
            rows[0].as_mut_slice()[image * c + i] = factor * one;
            rows[1].as_mut_slice()[image * c + i] = factor * zero;
        }
    }
    sums::cpu::batch_sums(cpu, rows[0].view(), grads, d_gamma)?;
    sums::cpu::batch_sums(cpu, rows[1].view(), grads, d_beta)?;
    Ok(d_scale_shift)
}
