use std::ops::Range;

use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, View};

use super::order::{self, Turned, turn};
use super::unit::{Block, DEPTH, SIDE, Step, TILE_BYTES};
use super::{Engine, strips};
use crate::conv::cpu::Sizes;
use crate::operand::Operand;
use crate::operand::cpu::Rows;
use crate::sums::GROUP;

/// Steps of k (of 32 positions) before the next tap: what they read stays near.
const CHUNK: usize = 4;
/// Side of a block of sums.
const BLOCK: usize = 2 * SIDE;
/// Bytes of packed images that are multiplied before the next are packed: about what second-level caches hold.
const PACKED_BYTES: usize = 8 << 20;
/// Bytes of a group's sums, up to which one thread does all of the group: sums and an image stay in its cache.
const SUMS_BYTES: usize = 1 << 20;

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
    let job = Job::new(engine, s);
    let groups = s.n.div_ceil(GROUP);
    let mut sums = cpu.scratch(groups * job.sums_len());
    let out = DisjointMut::new(&mut sums);
    let of_group = |group: usize| group * GROUP..((group + 1) * GROUP).min(s.n);
    let pack = |image: usize, left: &mut [T], right: &mut [T]| {
        pack_operand(cpu, s, &job, &rows, image, bytemuck::cast_slice_mut(left));
        pack_gradient(cpu, s, &job, dy.as_slice(), image, bytemuck::cast_slice_mut(right));
    };
    let (x_len, dy_len) = (job.x_len(), job.dy_len());
    // which thread computes what changes no sum: each is a chain over the images of a group, in order
    if groups >= cpu.threads() && job.sums_len() * size_of::<T>() <= SUMS_BYTES {
        cpu.parallel(groups, s.nanoseconds() / super::FASTER, |group| {
            let (mut left, mut right) = (cpu.scratch(x_len), cpu.scratch(dy_len));
            // SAFETY: each group has its own sums.
            let sums = unsafe { out.part(group * job.sums_len()..(group + 1) * job.sums_len()) };
            let sums = DisjointMut::new(sums);
            for image in of_group(group) {
                pack(image, &mut left, &mut right);
                let add = image > of_group(group).start;
                job.multiply(&left, &right, (0..job.c_blocks, 0..job.o_blocks), 0..job.taps, &sums, add);
            }
        });
    } else {
        let at_once =
            (PACKED_BYTES / ((x_len + dy_len) * size_of::<T>())).clamp(cpu.threads(), GROUP.max(cpu.threads()));
        let (mut left, mut right) = (cpu.scratch(at_once * x_len), cpu.scratch(at_once * dy_len));
        for group in 0..groups {
            // SAFETY: groups come one after the other.
            let sums = DisjointMut::new(unsafe { out.part(group * job.sums_len()..(group + 1) * job.sums_len()) });
            for first in of_group(group).step_by(at_once) {
                let images = first..(first + at_once).min(of_group(group).end);
                let (left_out, right_out) = (DisjointMut::new(&mut left), DisjointMut::new(&mut right));
                cpu.parallel(images.len(), images.len() * s.h * s.w * s.c * 2, |i| {
                    // SAFETY: each image has its own part.
                    let (left, right) = unsafe {
                        (left_out.part(i * x_len..(i + 1) * x_len), right_out.part(i * dy_len..(i + 1) * dy_len))
                    };
                    pack(first + i, left, right);
                });
                let work = s.nanoseconds() / super::FASTER * images.len() / s.n;
                let (tasks, task) = job.tasks();
                cpu.parallel(tasks, work, |index| {
                    let (blocks, taps) = task(index);
                    for i in 0..images.len() {
                        let left = &left[i * x_len..(i + 1) * x_len];
                        let right = &right[i * dy_len..(i + 1) * dy_len];
                        let add = first + i > of_group(group).start;
                        job.multiply(left, right, blocks.clone(), taps.clone(), &sums, add);
                    }
                });
            }
        }
    }
    add_groups(cpu, s, &sums, dw);
}

/// Blocks of channels of the operand and of the gradient.
type Blocks = (Range<usize>, Range<usize>);

/// The products of one convolution: sums are `[block of c][block of o][tap][32][32]`.
#[derive(Debug, Clone, Copy)]
struct Job {
    engine: Engine,
    at: Positions,
    kernel: usize,
    taps: usize,
    /// Channels, in whole tiles.
    c: usize,
    o: usize,
    c_blocks: usize,
    o_blocks: usize,
}

impl Job {
    fn new(engine: Engine, s: &Sizes) -> Self {
        let (c, o) = (s.c.next_multiple_of(SIDE), s.o.next_multiple_of(SIDE));
        let (kernel, at) = (s.g.kernel, Positions::new(s));
        let (c_blocks, o_blocks) = (c.div_ceil(BLOCK), o.div_ceil(BLOCK));
        Self { engine, at, kernel, taps: kernel * kernel, c, o, c_blocks, o_blocks }
    }

    fn sums_len(&self) -> usize {
        self.c_blocks * self.o_blocks * self.taps * BLOCK * BLOCK
    }

    /// Numbers of f32 that one image's operand takes: two of bf16 in each.
    fn x_len(&self) -> usize {
        self.c * self.at.stored * self.engine.parts() / 2
    }

    /// The same for its gradient.
    fn dy_len(&self) -> usize {
        self.o * self.at.summed * self.engine.parts() / 2
    }

    /// Tasks that have sums of their own: several blocks each where there are many, so that an image is read less often; some of
    /// the taps where there are few.
    fn tasks(self) -> (usize, impl Fn(usize) -> (Blocks, Range<usize>)) {
        let side = if self.c_blocks * self.o_blocks >= 16 { 2 } else { 1 };
        let tap_parts = if self.c_blocks * self.o_blocks < 4 { self.kernel } else { 1 };
        let (c_tasks, o_tasks) = (self.c_blocks.div_ceil(side), self.o_blocks.div_ceil(side));
        let blocks = move |task: usize, blocks: usize| task * side..((task + 1) * side).min(blocks);
        let task = move |task: usize| {
            let (tap_part, task) = (task % tap_parts, task / tap_parts);
            let taps = tap_part * self.taps / tap_parts..(tap_part + 1) * self.taps / tap_parts;
            ((blocks(task / o_tasks, self.c_blocks), blocks(task % o_tasks, self.o_blocks)), taps)
        };
        (c_tasks * o_tasks * tap_parts, task)
    }

    /// Adds the products of one image (or begins with them).
    fn multiply<T: Element>(
        &self,
        left: &[T],
        right: &[T],
        (c_blocks, o_blocks): Blocks,
        taps: Range<usize>,
        sums: &DisjointMut<'_, T>,
        add: bool,
    ) {
        let at = self.at;
        let steps_of_image = at.summed / DEPTH;
        let low = 2 * (self.engine.parts() - 1);
        let tiles = self.engine.tiles();
        let mut steps = Vec::with_capacity(CHUNK);
        for (c_block, o_block) in c_blocks.flat_map(|c| o_blocks.clone().map(move |o| (c, o))) {
            let (c_first, o_first) = (c_block * BLOCK, o_block * BLOCK);
            // parts of 16 bits: two of them in a number
            let a = &left[c_first * at.stored / 2..self.x_len()];
            let b = &right[o_first * at.summed / 2..self.dy_len()];
            let start = (c_block * self.o_blocks + o_block) * self.taps * BLOCK * BLOCK;
            for first in (0..steps_of_image).step_by(CHUNK) {
                for tap in taps.clone() {
                    let shift = at.of(tap / self.kernel, tap % self.kernel);
                    let chunk = first..(first + CHUNK).min(steps_of_image);
                    steps.clear();
                    steps.extend(chunk.map(|k| Step { a: (shift + k * DEPTH) * 2, b: k * TILE_BYTES }));
                    let start = start + tap * BLOCK * BLOCK;
                    // SAFETY: tasks have different blocks or taps.
                    let out = unsafe { sums.part(start..start + BLOCK * BLOCK) };
                    let t = Block {
                        a: a.as_ptr().cast(),
                        a_row: at.stored * 2,
                        a_tile: SIDE * at.stored * 2,
                        a_low: self.c * at.stored * low,
                        b: b.as_ptr().cast(),
                        b_tile: SIDE * at.summed * 2,
                        b_low: self.o * at.summed * low,
                        out: out.as_mut_ptr().cast(),
                        out_row: BLOCK,
                        rows: ((self.c - c_first) / SIDE).min(2),
                        columns: ((self.o - o_first) / SIDE).min(2),
                    };
                    // SAFETY: shifted positions end before the stored ones do (`Positions::new`), blocks before the last
                    // channel; T is f32.
                    unsafe { tiles.run(&steps, t, add || first > 0) };
                }
            }
        }
    }
}

/// One image's operand: rows of channels whose columns are positions, high parts, then low parts if there are any.
fn pack_operand<T: Element>(cpu: &Cpu<T>, s: &Sizes, job: &Job, rows: &Rows<'_, T>, image: usize, out: &mut [u16]) {
    let (g, at) = (s.g, job.at);
    let to = Turned { row: at.stored, low: (job.engine.parts() == 2).then_some(job.c * at.stored) };
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
    let strip = super::strip_rows(columns * s.c);
    let mut values = cpu.scratch(strip * columns * s.c);
    let count = s.h + g.before() + g.after();
    strips(-(g.before() as isize), count, strip, |first, strip| {
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
fn pack_gradient<T: Element>(cpu: &Cpu<T>, s: &Sizes, job: &Job, dy: &[T], image: usize, out: &mut [u32]) {
    let at = job.at;
    let (high, low) = out.split_at_mut(job.o * at.summed / 2);
    let row = |position: usize| {
        let (y, x) = (position / at.columns, position % at.columns);
        (y < s.out_h && x < s.out_w).then(|| &dy[((image * s.out_h + y) * s.out_w + x) * s.o..][..s.o])
    };
    let zeros = cpu.zeroed(s.o);
    let some_row = |position: usize| row(position).unwrap_or(&zeros);
    for pair in 0..at.summed / 2 {
        let high = &mut high[pair * SIDE..];
        let low = (job.engine.parts() == 2).then(|| &mut low[pair * SIDE..]);
        order::pair_rows(cpu.isa(), some_row(2 * pair), some_row(2 * pair + 1), high, low, at.summed / 2 * SIDE);
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
