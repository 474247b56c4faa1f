//! Operands on the CPU: whole values, and gradients of what they are made of.

mod cut;
mod rows;

use std::ops::Range;

use ddpm_tensor::cpu::CpuBuffer;
use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, Tensor, View, simd};

pub(crate) use self::cut::Cut;
use self::rows::Coefficients;
pub(crate) use self::rows::Rows;
use crate::error::expect;
use crate::lanes::{Strided, groups, lanes, map, map_two};
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
    let cut = Cut::by_rows(n, h, rows.task_rows());
    pulled(cpu, &rows, cut, n * h * w * c * NS_PER_ELEMENT, |images, stored, dv_rows| {
        let (row, first) = (scale * w * c, images.start * h + stored.start);
        dv_rows.copy_from_slice(&dv.as_slice()[first * row..][..images.len() * stored.len() * row]);
    })
}

/// Makes a [`Pulled`] from rows of the value's gradient: `make(images, stored rows, out)` fills the value's rows that belong to
/// the stored ones of each image.
pub(crate) fn pulled<T: Element>(
    cpu: &Cpu<T>,
    rows: &Rows<'_, T>,
    cut: Cut,
    nanoseconds: usize,
    make: impl Fn(Range<usize>, Range<usize>, &mut [T]) + Send + Sync,
) -> Result<Pulled<Cpu<T>>, KernelError> {
    let [n, h, w, c] = rows.stored;
    let mut g = Tensor::alloc(cpu, [n, h, w, c])?;
    let summed = if rows.norm { 2 * c } else { 0 };
    let mut partial = cpu.scratch(n * cut.parts() * summed);
    let (g_out, partial_out) = (DisjointMut::new(g.as_mut_slice()), DisjointMut::new(&mut partial));
    cpu.parallel(cut.tasks(), nanoseconds, |task| {
        let (images, parts) = cut.task(task);
        let stored = cut.rows_of(parts.clone());
        let row = w * c;
        let start = (images.start * h + stored.start) * row;
        // SAFETY: tasks have different images or rows; several images are whole.
        let g = unsafe { g_out.part(start..start + images.len() * stored.len() * row) };
        // what is not enlarged is pulled back where it is made
        let mut enlarged = cpu.scratch(if rows.nearest_2x { 4 * g.len() } else { 0 });
        make(images.clone(), stored.clone(), if rows.nearest_2x { &mut enlarged } else { g });
        for (i, image) in images.enumerate() {
            for part in parts.clone() {
                let start = (image * cut.parts() + part) * summed;
                // SAFETY: each part of an image has its own sums.
                let sums = unsafe { partial_out.part(start..start + summed) };
                sums.fill(T::ZERO);
                let rows_of_part = cut.rows_of(part..part + 1);
                let first = i * stored.len() + rows_of_part.start - stored.start;
                let range = first * row..(first + rows_of_part.len()) * row;
                let enlarged = if rows.nearest_2x { &enlarged[4 * range.start..4 * range.end] } else { &[] };
                rows.pull(image, rows_of_part, enlarged, &mut g[range], sums);
            }
        }
    });
    let sums = if rows.norm {
        let mut sums = Tensor::zeros(cpu, [n, c, 2])?;
        for (out, parts) in sums.as_mut_slice().chunks_exact_mut(2 * c).zip(partial.chunks_exact(cut.parts() * summed))
        {
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
        for (first, some) in groups(count) {
            if let Some((k, mean_g, mean_gx)) = norm {
                let (mean, rstd) = (lanes(k.mean, first), lanes(k.rstd, first));
                let (mean_g, mean_gx) = (lanes(mean_g, first), lanes(mean_gx, first));
                let x = Strided { values: x, stride: count, offset: 0 };
                map_two([g, x], out, (count, 0), (first, some), |i, g, x| {
                    let x_hat = (x - mean[i]) * rstd[i];
                    rstd[i] * (-x_hat).fma(mean_gx[i], g - mean_g[i])
                });
            } else {
                map(g, out, (count, 0), (first, some), |_, g| g);
            }
        }
        for (out, &add) in out.iter_mut().zip(add) {
            *out += add;
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
