//! An operand's value row by row, and its adjoint.

use std::ops::Range;

use ddpm_tensor::cpu::CpuBuffer;
use ddpm_tensor::{Cpu, Element, Isa, View, simd};

use crate::lanes::{LANES, Strided, groups, lanes, map};
use crate::operand::{Dropout, Operand, Parts};

/// Elements of a task: some rows of one image, a matter of its shape alone.
const TASK_ELEMENTS: usize = 1 << 15;

/// An operand with what its norm comes to for each image and channel.
pub(crate) struct Rows<'a, T: Element> {
    pub(super) parts: [Part<'a, T>; 2],
    /// `[N, FIELDS, C]`; empty without a norm.
    coefficients: CpuBuffer<T>,
    pub(super) norm: bool,
    silu: bool,
    dropout: Option<Dropout>,
    pub(crate) nearest_2x: bool,
    /// `[N, H, W, C]` of the stored parts.
    pub(crate) stored: [usize; 4],
    pub(super) isa: Isa,
}

#[derive(Clone, Copy)]
pub(super) struct Part<'a, T> {
    pub(super) values: &'a [T],
    pub(super) channels: usize,
}

/// mean; rstd; γ' = γ·(1 + scale); γ'·rstd; β' = β·(1 + scale) + shift.
const FIELDS: usize = 5;

/// The norm of one image for a range of channels: `n = (x − mean)·slope + shift`, `x̂ = (x − mean)·rstd`.
#[derive(Clone, Copy)]
pub(super) struct Coefficients<'a, T> {
    pub(super) mean: &'a [T],
    pub(super) rstd: &'a [T],
    pub(super) gamma: &'a [T],
    pub(super) slope: &'a [T],
    pub(super) shift: &'a [T],
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

    pub(super) fn coefficients(&self, image: usize, channels: Range<usize>) -> Option<Coefficients<'_, T>> {
        let c = self.stored[3];
        let fields = self.norm.then(|| &self.coefficients[image * FIELDS * c..][..FIELDS * c])?;
        let field = |i: usize| &fields[i * c + channels.start..i * c + channels.end];
        Some(Coefficients { mean: field(0), rstd: field(1), gamma: field(2), slope: field(3), shift: field(4) })
    }

    /// The parts that hold channels of a range: (pixels' first value in the row, channels of the part, overlap).
    pub(super) fn parts_of(&self, channels: Range<usize>) -> impl Iterator<Item = (Part<'a, T>, usize, Range<usize>)> {
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

    /// Pulls the gradient of rows of the value back to stored rows: `g` holds it and is overwritten, or, where the value is
    /// enlarged, `dv` holds it; adds Σ dn and Σ dn·x̂ of each channel to `sums` (`[C, 2]` as two halves) with a norm.
    pub(crate) fn pull(&self, image: usize, stored_rows: Range<usize>, dv: &[T], g: &mut [T], sums: &mut [T]) {
        let [_, h, w, c] = self.stored;
        for (i, y) in stored_rows.enumerate() {
            let g = &mut g[i * w * c..][..w * c];
            if self.nearest_2x {
                let (above, below) = dv[i * 4 * w * c..][..4 * w * c].split_at(2 * w * c);
                for (g, (above, below)) in
                    g.chunks_exact_mut(c).zip(above.chunks_exact(2 * c).zip(below.chunks_exact(2 * c)))
                {
                    sum_four(self.isa, above, below, g);
                }
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

simd! {
    fn activate[T: Element](isa, from: Strided<'_, T>, count: usize, norm: Option<Coefficients<'_, T>>, silu: bool, out: &mut [T], width: usize, at: usize) {
        for (first, some) in groups(count) {
            let (to, channels) = ((width, at), (first, some));
            let Some(k) = norm else {
                if silu {
                    map(from, out, to, channels, |_, x| x * x.sigmoid());
                } else {
                    map(from, out, to, channels, |_, x| x);
                }
                continue;
            };
            let (mean, slope, shift) = (lanes(k.mean, first), lanes(k.slope, first), lanes(k.shift, first));
            if silu {
                map(from, out, to, channels, |i, x| {
                    let n = (x - mean[i]).fma(slope[i], shift[i]);
                    n * n.sigmoid()
                });
            } else {
                map(from, out, to, channels, |i, x| (x - mean[i]).fma(slope[i], shift[i]));
            }
        }
    }
}

simd! {
    fn pull_back[T: Element](isa, from: Strided<'_, T>, count: usize, norm: Option<Coefficients<'_, T>>, silu: bool, g: &mut [T], width: usize, at: usize, sums: (&mut [T], &mut [T])) {
        for (first, some) in groups(count) {
            let pixels = from.values.chunks_exact(from.stride).zip(g.chunks_exact_mut(width));
            let pixels = pixels.map(|(x, g)| (&x[from.offset + first..], &mut g[at + first..]));
            let Some(k) = norm else {
                for (x, g) in pixels {
                    for (g, &x) in g[..some].iter_mut().zip(x) {
                        *g *= silu_slope(x);
                    }
                }
                continue;
            };
            let (mean, slope, shift) = (lanes(k.mean, first), lanes(k.slope, first), lanes(k.shift, first));
            let (rstd, gamma) = (lanes(k.rstd, first), lanes(k.gamma, first));
            let (mut zero, mut one) = (lanes(sums.0, first), lanes(sums.1, first));
            let mut pull = |i: usize, x: T, g: T| {
                let centred = x - mean[i];
                let mut dn = g;
                if silu {
                    dn *= silu_slope(centred.fma(slope[i], shift[i]));
                }
                zero[i] += dn;
                one[i] = dn.fma(centred * rstd[i], one[i]);
                dn * gamma[i]
            };
            for (x, g) in pixels {
                if let (LANES, Some(x), Some(g)) = (some, x.first_chunk::<LANES>(), g.first_chunk_mut::<LANES>()) {
                    for i in 0..LANES {
                        g[i] = pull(i, x[i], g[i]);
                    }
                } else {
                    for i in 0..some {
                        g[i] = pull(i, x[i], g[i]);
                    }
                }
            }
            sums.0[first..first + some].copy_from_slice(&zero[..some]);
            sums.1[first..first + some].copy_from_slice(&one[..some]);
        }
    }
}

simd! {
    /// The sum of the four pixels that a pixel was enlarged to.
    fn sum_four[T: Element](isa, above: &[T], below: &[T], out: &mut [T]) {
        let c = out.len();
        let ((a, b), (d, e)) = (above.split_at(c), below.split_at(c));
        let (b, e) = (&b[..c], &e[..c]);
        for i in 0..c {
            out[i] = (a[i] + b[i]) + (d[i] + e[i]);
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
    const MANY: usize = 512;
    let mut uniform = [0f32; MANY];
    if width == c {
        for (i, out) in out.chunks_mut(uniform.len()).enumerate() {
            let uniform = &mut uniform[..out.len()];
            address.fill_uniform(first + i * MANY, uniform);
            for (value, &u) in out.iter_mut().zip(&*uniform) {
                *value = if u >= dropout.probability { *value * keep } else { T::ZERO };
            }
        }
        return;
    }
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
