use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, View};

use super::tile::{Micro, Segment, Tile};
use crate::conv::cpu::Sizes;
use crate::operand::Operand;
use crate::operand::cpu::Rows;
use crate::sums::GROUP;

/// Pixels whose products are one chain of sums: what they read stays in the first-level cache.
const CHUNK_PIXELS: usize = 128;

/// Adds the gradient to `dw [kernel, kernel, C, O]`.
pub(in crate::conv::cpu) fn weight_grad<T: Element>(
    cpu: &Cpu<T>,
    s: &Sizes,
    dy: View<'_, Cpu<T>>,
    x: &Operand<'_, Cpu<T>>,
    dw: &mut [T],
) {
    let g = s.g;
    let taps = g.kernel * g.kernel;
    let rows = Rows::new(cpu, x);
    let micro = Micro::new::<T>(cpu.isa());
    // one thread sums a slice of channels over a group of images; slices are a matter of shape, and no bit depends on them
    let slices = (s.c / 16).clamp(1, 4);
    let groups = s.n.div_ceil(GROUP);
    let width = s.o.next_multiple_of(micro.lanes);
    let columns = s.w + g.before() + g.after();
    let channels = |slice: usize| slice * s.c / slices..(slice + 1) * s.c / slices;
    // partial sums: [group][slice] → [tap][c of the slice][width], slices one after the other
    let group_len = taps * s.c * width;
    let mut partial = cpu.scratch(groups * group_len);
    let out = DisjointMut::new(&mut partial);
    cpu.parallel(groups * slices, s.nanoseconds(), |task| {
        let (group, slice) = (task / slices, task % slices);
        let channels = channels(slice);
        let c = channels.len();
        let start = group * group_len + taps * channels.start * width;
        // SAFETY: every task has its own group or slice.
        let sums = unsafe { out.part(start..start + taps * c * width) };
        sums.fill(T::ZERO);
        let mut left = cpu.scratch((s.h + g.before() + g.after()) * columns * c);
        let mut right = cpu.scratch(if width == s.o { 0 } else { s.out_h * s.out_w * width });
        for image in group * GROUP..((group + 1) * GROUP).min(s.n) {
            let all = -(g.before() as isize)..(s.h + g.after()) as isize;
            rows.padded(image, all, (g.before(), columns), channels.clone(), &mut left);
            let dy = &dy.as_slice()[image * s.out_h * s.out_w * s.o..][..s.out_h * s.out_w * s.o];
            let right: &[T] = if width == s.o {
                dy
            } else {
                for (to, from) in right.chunks_exact_mut(width).zip(dy.chunks_exact(s.o)) {
                    to[..s.o].copy_from_slice(from);
                    to[s.o..].fill(T::ZERO);
                }
                &right
            };
            accumulate(micro, s, c, columns, &left, right, width, sums);
        }
    });
    // groups are added in order: each element of the gradient is a chain of its own
    let len = taps * s.c * s.o;
    let out = DisjointMut::new(dw);
    cpu.parallel(slices, len * groups, |slice| {
        let channels = channels(slice);
        for group in partial.chunks_exact(group_len) {
            let sums = &group[taps * channels.start * width..][..taps * channels.len() * width];
            for (i, sums) in sums.chunks_exact(width).enumerate() {
                let (tap, c) = (i / channels.len(), channels.start + i % channels.len());
                // SAFETY: every slice has its own channels.
                let grad = unsafe { out.part((tap * s.c + c) * s.o..(tap * s.c + c + 1) * s.o) };
                for (grad, &sum) in grad.iter_mut().zip(sums) {
                    *grad += sum;
                }
            }
        }
    });
}

/// Adds one image's products to `sums [tap][c][width]`; `left` is the padded image, `right [pixel][width]`.
fn accumulate<T: Element>(
    micro: Micro,
    s: &Sizes,
    c: usize,
    columns: usize,
    left: &[T],
    right: &[T],
    width: usize,
    sums: &mut [T],
) {
    let g = s.g;
    // with one tap and no stride the rows of the image follow each other
    let (lines, line) = if g.kernel == 1 && g.stride == 1 { (1, s.out_h * s.out_w) } else { (s.out_h, s.out_w) };
    let chunk_rows = (CHUNK_PIXELS / line).max(1);
    let mut segments = Vec::with_capacity(chunk_rows);
    for first in (0..lines).step_by(chunk_rows) {
        for start in (0..line).step_by(CHUNK_PIXELS) {
            let len = CHUNK_PIXELS.min(line - start);
            for tap in 0..g.kernel * g.kernel {
                let (ky, kx) = (tap / g.kernel, tap % g.kernel);
                segments.clear();
                for row in first..(first + chunk_rows).min(lines) {
                    // in steps of k, which is a pixel of the result
                    segments.push(Segment { a: row * columns, b: row * line + start, len });
                }
                let last = segments.last().map_or(0, |s| s.a + s.len - 1);
                let right_end = segments.last().map_or(0, |s| s.b + s.len) * width;
                for (at, height) in micro.heights(c) {
                    let a = ((ky * columns + kx) + start * g.stride) * c + at;
                    assert!(a + last * c * g.stride + height <= left.len() && right_end <= right.len());
                    for column in (0..width).step_by(2 * micro.lanes) {
                        let vectors = (width - column).min(2 * micro.lanes) / micro.lanes;
                        let t = Tile {
                            a: &raw const left[a],
                            a_row: 1,
                            a_k: c * g.stride,
                            b: &raw const right[column],
                            b_row: width,
                            out: &raw mut sums[(tap * c + at) * width + column],
                            out_row: width,
                        };
                        // SAFETY: the pixels' taps lie in the padded image (asserted above), the columns in the sums.
                        unsafe { micro.run(height, vectors, &segments, t, true) };
                    }
                }
            }
        }
    }
}
