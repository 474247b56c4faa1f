//! Operands on the CPU: their value row by row, and its adjoint.

use std::ops::Range;

use ddpm_tensor::cpu::CpuBuffer;
use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, Isa, Tensor, View, simd};

use crate::error::expect;
use crate::operand::{Dropout, Operand, Parts, Pulled};
use crate::{KernelError, sums};

/// Rough time to make or pull back one element, for the choice of threads.
const NS_PER_ELEMENT: usize = 2;
/// Elements of a task: some rows of one image, a matter of its shape alone.
const TASK_ELEMENTS: usize = 1 << 15;

/// An operand with what its norm comes to for each image and channel.
pub(crate) struct Rows<'a, T: Element> {
    parts: [Part<'a, T>; 2],
    /// `[N, FIELDS, C]`; empty without a norm.
    coefficients: CpuBuffer<T>,
    norm: bool,
    silu: bool,
    dropout: Option<Dropout>,
    pub(crate) nearest_2x: bool,
    /// `[N, H, W, C]` of the stored parts.
    pub(crate) stored: [usize; 4],
    isa: Isa,
}

#[derive(Clone, Copy)]
struct Part<'a, T> {
    values: &'a [T],
    channels: usize,
}

/// mean; rstd; γ' = γ·(1 + scale); γ'·rstd; β' = β·(1 + scale) + shift.
const FIELDS: usize = 5;

/// The norm of one image for a range of channels: `n = (x − mean)·slope + shift`, `x̂ = (x − mean)·rstd`.
#[derive(Clone, Copy)]
struct Coefficients<'a, T> {
    mean: &'a [T],
    rstd: &'a [T],
    gamma: &'a [T],
    slope: &'a [T],
    shift: &'a [T],
}

impl<'a, T: Element> Rows<'a, T> {
    pub(crate) fn new(cpu: &Cpu<T>, x: &Operand<'a, Cpu<T>>) -> Self {
        let [n, _, _, c] = x.stored();
        let part = |v: View<'a, Cpu<T>>| Part { values: v.as_slice(), channels: v.shape().nhwc()[3] };
        let parts = match x.parts {
            Parts::One(a) => [part(a), Part { values: &[], channels: 0 }],
            Parts::Two(a, b) => [part(a), part(b)],
        };
        let mut coefficients = cpu.scratch(if x.norm.is_some() { n * FIELDS * c } else { 0 });
        if let Some(norm) = &x.norm {
            let (gamma, beta) = (norm.gamma.as_slice(), norm.beta.as_slice());
            for (image, fields) in coefficients.chunks_exact_mut(FIELDS * c).enumerate() {
                let statistics = &norm.statistics.as_slice()[image * 2 * norm.groups..][..2 * norm.groups];
                let scale_shift = norm.scale_shift.map(|s| &s.as_slice()[image * 2 * c..][..2 * c]);
                for i in 0..c {
                    let group = i / (c / norm.groups);
                    let (mean, rstd) = (statistics[2 * group], statistics[2 * group + 1]);
                    let (mut scaled, mut shift) = (gamma[i], beta[i]);
                    if let Some(s) = scale_shift {
                        let factor = T::ONE + s[i];
                        scaled *= factor;
                        shift = shift.fma(factor, s[c + i]);
                    }
                    for (field, value) in [mean, rstd, scaled, scaled * rstd, shift].into_iter().enumerate() {
                        fields[field * c + i] = value;
                    }
                }
            }
        }
        Self {
            parts,
            coefficients,
            norm: x.norm.is_some(),
            silu: x.silu,
            dropout: x.dropout,
            nearest_2x: x.nearest_2x,
            stored: x.stored(),
            isa: cpu.isa(),
        }
    }

    /// Whether the value is the first part itself.
    pub(crate) fn is_plain(&self) -> bool {
        self.parts[1].channels == 0 && !self.norm && !self.silu && self.dropout.is_none() && !self.nearest_2x
    }

    /// The values of the first part.
    pub(crate) fn first_part(&self) -> &'a [T] {
        self.parts[0].values
    }

    /// `[N, H, W, C]` of the value.
    pub(crate) fn size(&self) -> [usize; 4] {
        let [n, h, w, c] = self.stored;
        if self.nearest_2x { [n, 2 * h, 2 * w, c] } else { self.stored }
    }

    fn coefficients(&self, image: usize, channels: Range<usize>) -> Option<Coefficients<'_, T>> {
        let c = self.stored[3];
        let fields = self.norm.then(|| &self.coefficients[image * FIELDS * c..][..FIELDS * c])?;
        let field = |i: usize| &fields[i * c + channels.start..i * c + channels.end];
        Some(Coefficients { mean: field(0), rstd: field(1), gamma: field(2), slope: field(3), shift: field(4) })
    }

    /// The parts that hold channels of a range: (pixels' first value in the row, channels of the part, overlap).
    fn parts_of(&self, channels: Range<usize>) -> impl Iterator<Item = (Part<'a, T>, usize, Range<usize>)> {
        let starts = [0, self.parts[0].channels];
        self.parts.into_iter().zip(starts).filter_map(move |(part, start)| {
            let overlap = channels.start.max(start)..channels.end.min(start + part.channels);
            (overlap.start < overlap.end).then_some((part, start, overlap))
        })
    }

    /// Some channels of a stored row, before enlarging: `out[x · channels + c]`.
    fn stored_row(&self, image: usize, y: usize, channels: Range<usize>, out: &mut [T]) {
        let [_, h, w, c] = self.stored;
        let width = channels.len();
        for (part, start, overlap) in self.parts_of(channels.clone()) {
            let row = &part.values[(image * h + y) * w * part.channels..][..w * part.channels];
            let from = Strided { values: row, stride: part.channels, offset: overlap.start - start };
            let at = overlap.start - channels.start;
            let norm = self.coefficients(image, overlap.clone());
            activate(self.isa, from, overlap.len(), norm, self.silu, out, width, at);
        }
        if let Some(dropout) = self.dropout {
            drop_out(&dropout, image, y * w * c, c, channels, out);
        }
    }

    /// Some channels of rows of the value with zeros around them: `out[(row, column), c]`, `columns` of which hold the image
    /// from column `before` on; rows outside the image are zero.
    pub(crate) fn padded(
        &self,
        image: usize,
        rows: Range<isize>,
        (before, columns): (usize, usize),
        channels: Range<usize>,
        out: &mut [T],
    ) {
        let [_, h, w, _] = self.size();
        let c = channels.len();
        let mut last_stored = None;
        for (i, y) in rows.enumerate() {
            let (done, rest) = out.split_at_mut(i * columns * c);
            let row = &mut rest[..columns * c];
            let Some(y) = usize::try_from(y).ok().filter(|&y| y < h) else {
                row.fill(T::ZERO);
                continue;
            };
            row[..before * c].fill(T::ZERO);
            row[(before + w) * c..].fill(T::ZERO);
            if !self.nearest_2x {
                self.stored_row(image, y, channels.clone(), &mut row[before * c..(before + w) * c]);
            } else if last_stored == Some(y / 2) {
                row.copy_from_slice(&done[(i - 1) * columns * c..]);
            } else {
                // the stored row at the end of its place, then spread from the left: writing never overtakes reading
                last_stored = Some(y / 2);
                let inner = &mut row[before * c..(before + w) * c];
                self.stored_row(image, y / 2, channels.clone(), &mut inner[w / 2 * c..]);
                for x in 0..w / 2 {
                    let from = (w / 2 + x) * c..(w / 2 + x + 1) * c;
                    inner.copy_within(from.clone(), 2 * x * c);
                    inner.copy_within(2 * x * c..(2 * x + 1) * c, (2 * x + 1) * c);
                }
            }
        }
    }

    /// Pulls the gradient of rows of the value back to stored rows: `dv` has the value's rows, `g` the stored ones;
    /// adds Σ dn and Σ dn·x̂ of each channel to `sums` (`[C, 2]` as two halves) with a norm.
    pub(crate) fn pull(&self, image: usize, stored_rows: Range<usize>, dv: &mut [T], g: &mut [T], sums: &mut [T]) {
        let [_, h, w, c] = self.stored;
        for (i, y) in stored_rows.enumerate() {
            let g = &mut g[i * w * c..][..w * c];
            if self.nearest_2x {
                let two = &dv[i * 4 * w * c..][..4 * w * c];
                for x in 0..w {
                    for k in 0..c {
                        let at = |row: usize, column: usize| two[(row * 2 * w + 2 * x + column) * c + k];
                        g[x * c + k] = (at(0, 0) + at(0, 1)) + (at(1, 0) + at(1, 1));
                    }
                }
            } else {
                g.copy_from_slice(&dv[i * w * c..][..w * c]);
            }
            if let Some(dropout) = self.dropout {
                drop_out(&dropout, image, y * w * c, c, 0..c, g);
            }
            if !self.silu && !self.norm {
                continue;
            }
            for (part, start, overlap) in self.parts_of(0..c) {
                let row = &part.values[(image * h + y) * w * part.channels..][..w * part.channels];
                let from = Strided { values: row, stride: part.channels, offset: overlap.start - start };
                let norm = self.coefficients(image, overlap.clone());
                let (zero, one) = sums.split_at_mut(sums.len() / 2);
                let sums = if self.norm {
                    (&mut zero[overlap.clone()], &mut one[overlap.clone()])
                } else {
                    (&mut [][..], &mut [][..])
                };
                pull_back(self.isa, from, overlap.len(), norm, self.silu, g, c, overlap.start, sums);
            }
        }
    }

    /// Stored rows of a task that makes or pulls back values: a matter of one image's shape.
    pub(crate) fn task_rows(&self) -> usize {
        let [_, h, w, c] = self.stored;
        (TASK_ELEMENTS / (w * c).max(1)).clamp(1, h.max(1))
    }
}

/// Pixels of which some channels are read: `values[pixel · stride + offset + c]`.
#[derive(Clone, Copy)]
struct Strided<'a, T> {
    values: &'a [T],
    stride: usize,
    offset: usize,
}

simd! {
    fn activate[T: Element](isa, from: Strided<'_, T>, count: usize, norm: Option<Coefficients<'_, T>>, silu: bool, out: &mut [T], width: usize, at: usize) {
        for (from, out) in from.values.chunks_exact(from.stride).zip(out.chunks_exact_mut(width)) .map(|(f, o)| (&f[from.offset..from.offset + count], &mut o[at..at + count])) {
            if let Some(k) = norm {
                let (mean, slope, shift) = (&k.mean[..count], &k.slope[..count], &k.shift[..count]);
                if silu {
                    for i in 0..count {
                        let n = (from[i] - mean[i]).fma(slope[i], shift[i]);
                        out[i] = n * n.sigmoid();
                    }
                } else {
                    for i in 0..count {
                        out[i] = (from[i] - mean[i]).fma(slope[i], shift[i]);
                    }
                }
            } else if silu {
                for i in 0..count {
                    out[i] = from[i] * from[i].sigmoid();
                }
            } else {
                out.copy_from_slice(from);
            }
        }
    }
}

simd! {
    fn pull_back[T: Element](isa, from: Strided<'_, T>, count: usize, norm: Option<Coefficients<'_, T>>, silu: bool, g: &mut [T], width: usize, at: usize, sums: (&mut [T], &mut [T])) {
        for (from, g) in from.values.chunks_exact(from.stride).zip(g.chunks_exact_mut(width)).map(|(f, o)| (&f[from.offset..from.offset + count], &mut o[at..at + count])) {
            if let Some(k) = norm {
                let (mean, slope, shift) = (&k.mean[..count], &k.slope[..count], &k.shift[..count]);
                let (rstd, gamma) = (&k.rstd[..count], &k.gamma[..count]);
                let (zero, one) = (&mut sums.0[..count], &mut sums.1[..count]);
                for i in 0..count {
                    let centred = from[i] - mean[i];
                    let mut dn = g[i];
                    if silu {
                        let n = centred.fma(slope[i], shift[i]);
                        dn *= silu_slope(n);
                    }
                    zero[i] += dn;
                    one[i] = dn.fma(centred * rstd[i], one[i]);
                    g[i] = dn * gamma[i];
                }
            } else {
                for i in 0..count {
                    g[i] *= silu_slope(from[i]);
                }
            }
        }
    }
}

/// d/dn n·σ(n) = σ(n)·(1 + n·(1 − σ(n))).
#[inline(always)]
fn silu_slope<T: Element>(n: T) -> T {
    let s = n.sigmoid();
    s * n.fma(T::ONE - s, T::ONE)
}

/// Multiplies some channels of a row of pixels by their dropout factor, 0 or 1/(1 − p).
fn drop_out<T: Element>(
    dropout: &Dropout,
    image: usize,
    first: usize,
    c: usize,
    channels: Range<usize>,
    out: &mut [T],
) {
    let width = channels.len();
    let pixels = out.len() / width;
    let address = dropout.address.at_sample(dropout.address.sample + image as u64);
    let keep = T::ONE / (T::ONE - T::of_f32(dropout.probability));
    let mut uniform = [0f32; 512];
    // some pixels at a time, or (with many channels) a part of one pixel
    let step = (uniform.len() / c).max(1);
    for start in (0..pixels).step_by(step) {
        for part in (0..c).step_by(uniform.len()) {
            let count = if c > uniform.len() { uniform.len().min(c - part) } else { c * step.min(pixels - start) };
            address.fill_uniform(first + start * c + part, &mut uniform[..count]);
            for (i, &u) in uniform[..count].iter().enumerate() {
                let (pixel, channel) = (start + (part + i) / c, (part + i) % c);
                if channels.contains(&channel) {
                    let value = &mut out[pixel * width + channel - channels.start];
                    *value = if u >= dropout.probability { *value * keep } else { T::ZERO };
                }
            }
        }
    }
}

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
    let [n, h, w, c] = rows.stored;
    let step = rows.task_rows();
    let tasks = h.div_ceil(step);
    let mut g = Tensor::alloc(cpu, [n, h, w, c])?;
    let summed = if rows.norm { 2 * c } else { 0 };
    let mut partial = cpu.scratch(n * tasks * summed);
    let (g_out, partial_out) = (DisjointMut::new(g.as_mut_slice()), DisjointMut::new(&mut partial));
    let scale = if rows.nearest_2x { 4 } else { 1 };
    cpu.parallel(n * tasks, nanoseconds, |task| {
        let (image, first) = (task / tasks, task % tasks * step);
        let stored = first..(first + step).min(h);
        let mut dv = cpu.scratch(stored.len() * scale * w * c);
        make(image, stored.clone(), &mut dv);
        // SAFETY: tasks have different images or rows.
        let g = unsafe { g_out.part((image * h + stored.start) * w * c..(image * h + stored.end) * w * c) };
        // SAFETY: each task has its own part.
        let sums = unsafe { partial_out.part(task * summed..(task + 1) * summed) };
        sums.fill(T::ZERO);
        rows.pull(image, stored, &mut dv, g, sums);
    });
    let sums = if rows.norm {
        let mut sums = Tensor::zeros(cpu, [n, c, 2])?;
        for (out, parts) in sums.as_mut_slice().chunks_exact_mut(2 * c).zip(partial.chunks_exact(tasks * summed)) {
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
