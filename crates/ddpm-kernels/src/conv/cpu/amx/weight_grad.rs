use ddpm_tensor::cpu::CpuBuffer;
use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, View};

use super::bf16;
use super::turn::{Turned, turn};
use super::unit::{Block, DEPTH, SIDE, Step, TILE_BYTES};
use super::{Engine, strips};
use crate::conv::cpu::Sizes;
use crate::operand::Operand;
use crate::operand::cpu::Rows;
use crate::sums::GROUP;

/// Steps of k (of 32 positions) before the next tap: what they read stays near.
const CHUNK: usize = 4;
/// Bytes of packed images at once, where several groups fit.
const PACKED_BYTES: usize = 64 << 20;

/// How an image's positions are counted: those of the padded operand, with a stride even rows and columns apart from odd ones.
#[derive(Debug, Clone, Copy)]
struct Positions {
    /// Rows and columns of one phase.
    rows: usize,
    columns: usize,
    stride: usize,
    /// Positions that are summed: the result's, with those at the rows' ends (where dy is zero); whole steps.
    summed: usize,
    /// Positions of one channel in memory: an odd number of cache lines, which spreads them over the cache.
    stored: usize,
}

impl Positions {
    fn new(s: &Sizes) -> Self {
        let (g, around) = (s.g, s.g.before() + s.g.after());
        let (rows, columns) = ((s.h + around).div_ceil(g.stride), (s.w + around).div_ceil(g.stride));
        let summed = ((s.out_h - 1) * columns + s.out_w).next_multiple_of(DEPTH);
        let phases = g.stride * g.stride;
        let reach = (phases - 1) * rows * columns + summed + (g.kernel - 1) / g.stride * (columns + 1);
        let lines = reach.max(phases * rows * columns).div_ceil(DEPTH);
        Self { rows, columns, stride: g.stride, summed, stored: (lines | 1) * DEPTH }
    }

    /// Position of a pixel of the padded operand.
    fn of(self, y: usize, x: usize) -> usize {
        let phase = y % self.stride * self.stride + x % self.stride;
        (phase * self.rows + y / self.stride) * self.columns + x / self.stride
    }
}

/// Adds the gradient to `dw [kernel, kernel, C, O]`.
pub(in crate::conv::cpu) fn weight_grad<T: Element>(
    engine: Engine,
    cpu: &Cpu<T>,
    s: &Sizes,
    dy: View<'_, Cpu<T>>,
    x: &Operand<'_, Cpu<T>>,
    dw: &mut [T],
) {
    assert!(size_of::<T>() == size_of::<f32>(), "tiles hold parts of f32");
    let rows = Rows::new(cpu, x);
    let at = Positions::new(s);
    let (c, o) = (s.c.next_multiple_of(SIDE), s.o.next_multiple_of(SIDE));
    // numbers of T that an image's packed operand and gradient take: two of bf16 in each
    let (x_len, dy_len) = (c * at.stored, o * at.summed);
    let groups_at_once = (PACKED_BYTES / (GROUP * (x_len + dy_len) * size_of::<T>())).max(1);
    for images in 0..s.n.div_ceil(GROUP * groups_at_once) {
        let images = images * GROUP * groups_at_once..((images + 1) * GROUP * groups_at_once).min(s.n);
        let mut left = cpu.scratch(images.len() * x_len);
        let mut right = cpu.scratch(images.len() * dy_len);
        let (left_out, right_out) = (DisjointMut::new(&mut left), DisjointMut::new(&mut right));
        cpu.parallel(images.len(), images.len() * s.h * s.w * s.c * 2, |i| {
            // SAFETY: each image has its own part.
            let (left, right) =
                unsafe { (left_out.part(i * x_len..(i + 1) * x_len), right_out.part(i * dy_len..(i + 1) * dy_len)) };
            pack_operand(cpu, s, at, &rows, images.start + i, bytemuck::cast_slice_mut(left));
            pack_gradient(cpu, s, at, dy.as_slice(), images.start + i, bytemuck::cast_slice_mut(right));
        });
        let sums = products(engine, cpu, s, at, images.len(), &left, &right);
        add_groups(cpu, s, &sums, dw);
    }
}

/// Side of a block of sums.
const BLOCK: usize = 2 * SIDE;

/// The sums of each group, `[group][block of c][block of o][tap][32][32]`.
fn products<T: Element>(
    engine: Engine,
    cpu: &Cpu<T>,
    s: &Sizes,
    at: Positions,
    images: usize,
    left: &[T],
    right: &[T],
) -> CpuBuffer<T> {
    let taps = s.g.kernel * s.g.kernel;
    let (c, o) = (s.c.next_multiple_of(SIDE), s.o.next_multiple_of(SIDE));
    let (x_len, dy_len) = (left.len() / images, right.len() / images);
    let (c_blocks, o_blocks) = (c.div_ceil(BLOCK), o.div_ceil(BLOCK));
    let groups = images.div_ceil(GROUP);
    let group_len = c_blocks * o_blocks * taps * BLOCK * BLOCK;
    // a task takes several blocks where there are many, so that an image is read less often, and shares taps where there are few
    let side = if c_blocks * o_blocks >= 16 { 2 } else { 1 };
    let tap_parts = if c_blocks * o_blocks < 4 { s.g.kernel } else { 1 };
    let (c_tasks, o_tasks) = (c_blocks.div_ceil(side), o_blocks.div_ceil(side));
    let tasks = c_tasks * o_tasks * tap_parts;
    let steps_of_image = at.summed / DEPTH;
    let mut sums = cpu.scratch(groups * group_len);
    let out = DisjointMut::new(&mut sums);
    cpu.parallel(groups * tasks, s.nanoseconds() / super::FASTER, |task| {
        let (group, task) = (task / tasks, task % tasks);
        let (tap_part, task) = (task % tap_parts, task / tap_parts);
        let taps_of_task = tap_part * taps / tap_parts..(tap_part + 1) * taps / tap_parts;
        let blocks_of = |task: usize, blocks: usize| task * side..((task + 1) * side).min(blocks);
        let tiles = engine.tiles();
        let mut steps = Vec::with_capacity(CHUNK);
        for image in group * GROUP..((group + 1) * GROUP).min(images) {
            for c_block in blocks_of(task / o_tasks, c_blocks) {
                for o_block in blocks_of(task % o_tasks, o_blocks) {
                    let (c_first, o_first) = (c_block * BLOCK, o_block * BLOCK);
                    let a = &left[image * x_len + c_first * at.stored / 2..(image + 1) * x_len];
                    let b = &right[image * dy_len + o_first * at.summed / 2..(image + 1) * dy_len];
                    let start = group * group_len + (c_block * o_blocks + o_block) * taps * BLOCK * BLOCK;
                    for first in (0..steps_of_image).step_by(CHUNK) {
                        for tap in taps_of_task.clone() {
                            let shift = at.of(tap / s.g.kernel, tap % s.g.kernel);
                            let chunk = first..(first + CHUNK).min(steps_of_image);
                            steps.clear();
                            steps.extend(chunk.map(|k| Step { a: (shift + k * DEPTH) * 2, b: k * TILE_BYTES }));
                            let start = start + tap * BLOCK * BLOCK;
                            // SAFETY: only this task has this block's tap.
                            let out = unsafe { out.part(start..start + BLOCK * BLOCK) };
                            let t = Block {
                                a: a.as_ptr().cast(),
                                a_row: at.stored * 2,
                                a_tile: SIDE * at.stored * 2,
                                a_low: c * at.stored * 2,
                                b: b.as_ptr().cast(),
                                b_tile: SIDE * at.summed * 2,
                                b_low: o * at.summed * 2,
                                out: out.as_mut_ptr().cast(),
                                out_row: BLOCK,
                                rows: ((c - c_first) / SIDE).min(2),
                                columns: ((o - o_first) / SIDE).min(2),
                            };
                            // SAFETY: shifted positions end before the stored ones do (`Positions::new`), blocks before the
                            // last channel; T is f32.
                            unsafe { tiles.run(&steps, t, image > group * GROUP || first > 0) };
                        }
                    }
                }
            }
        }
    });
    sums
}

/// One image's operand: rows of channels whose columns are positions, high parts then low parts.
fn pack_operand<T: Element>(cpu: &Cpu<T>, s: &Sizes, at: Positions, rows: &Rows<'_, T>, image: usize, out: &mut [u16]) {
    let g = s.g;
    let c = s.c.next_multiple_of(SIDE);
    let to = Turned { row: at.stored, low: c * at.stored };
    let columns = s.w + g.before() + g.after();
    let phases = g.stride * g.stride;
    // what is stored but holds no pixel is multiplied by zeros, so it must be a number
    for row in out.chunks_exact_mut(at.stored) {
        if g.stride > 1 {
            row.fill(0);
        } else {
            row[phases * at.rows * at.columns..].fill(0);
        }
    }
    let mut values = cpu.scratch(super::STRIP * columns * s.c);
    let count = s.h + g.before() + g.after();
    strips(-(g.before() as isize), count, |first, strip| {
        let strip_rows = strip.len();
        let values = &mut values[..strip_rows * columns * s.c];
        rows.padded(image, strip, (g.before(), columns), 0..s.c, values);
        if g.stride == 1 {
            turn(cpu.isa(), values, s.c, strip_rows * columns, s.c, out, to, at.of(first, 0));
            return;
        }
        for (y, row) in values.chunks_exact(columns * s.c).enumerate() {
            for phase in 0..g.stride {
                let count = (columns - phase).div_ceil(g.stride);
                let from = &row[phase * s.c..];
                turn(cpu.isa(), from, g.stride * s.c, count, s.c, out, to, at.of(first + y, phase));
            }
        }
    });
}

/// One image's gradient: for each 16 output channels pairs of positions, zero where the operand's rows end.
fn pack_gradient<T: Element>(cpu: &Cpu<T>, s: &Sizes, at: Positions, dy: &[T], image: usize, out: &mut [u32]) {
    let o = s.o.next_multiple_of(SIDE);
    let (high, low) = out.split_at_mut(o * at.summed / 2);
    let row = |position: usize| {
        let (y, x) = (position / at.columns, position % at.columns);
        (y < s.out_h && x < s.out_w).then(|| &dy[((image * s.out_h + y) * s.out_w + x) * s.o..][..s.o])
    };
    let zeros = cpu.zeroed(s.o);
    let some_row = |position: usize| row(position).unwrap_or(&zeros);
    for pair in 0..at.summed / 2 {
        let (high, low) = (&mut high[pair * SIDE..], &mut low[pair * SIDE..]);
        bf16::pair_rows(cpu.isa(), some_row(2 * pair), some_row(2 * pair + 1), high, low, at.summed / 2 * SIDE);
    }
}

/// Adds the groups' sums to dw, in order.
fn add_groups<T: Element>(cpu: &Cpu<T>, s: &Sizes, sums: &[T], dw: &mut [T]) {
    let taps = s.g.kernel * s.g.kernel;
    let (c_blocks, o_blocks) = (s.c.div_ceil(BLOCK), s.o.div_ceil(BLOCK));
    let out = DisjointMut::new(dw);
    cpu.parallel(taps, sums.len(), |tap| {
        // SAFETY: every task has its own tap.
        let dw = unsafe { out.part(tap * s.c * s.o..(tap + 1) * s.c * s.o) };
        for group in sums.chunks_exact(c_blocks * o_blocks * taps * BLOCK * BLOCK) {
            for (c, dw) in dw.chunks_exact_mut(s.o).enumerate() {
                for (block, dw) in dw.chunks_mut(BLOCK).enumerate() {
                    let block = (c / BLOCK * o_blocks + block) * taps + tap;
                    let sums = &group[(block * BLOCK + c % BLOCK) * BLOCK..];
                    for (dw, &sum) in dw.iter_mut().zip(sums) {
                        *dw += sum;
                    }
                }
            }
        }
    });
}
