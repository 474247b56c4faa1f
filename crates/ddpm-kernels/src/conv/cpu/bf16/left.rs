//! Left operands: padded images of bf16 in planes of 32 channels, so that a tile's rows follow each other in memory and all
//! taps of a plane are read while it is in the first-level cache.

use std::ops::Range;

use ddpm_tensor::cpu::CpuBuffer;
use ddpm_tensor::{Cpu, Element};

use super::order;
use super::unit::{Block, DEPTH, ROW_BYTES, SIDE, Step, TILE_BYTES, Tiles};
use super::weights::Panel;

/// Images of some rows and columns: for each 32 channels a plane of high parts, then one of low parts if there are any.
pub(super) struct Left<T: Element> {
    values: CpuBuffer<T>,
    columns: usize,
    /// Pixels of a plane.
    pixels: usize,
    parts: usize,
}

impl<T: Element> Left<T> {
    /// Room for `rows` rows in all; whole tiles of rows may be read from any of them, `slack` pixels beyond the last.
    pub(super) fn new(cpu: &Cpu<T>, parts: usize, c: usize, rows: usize, columns: usize, slack: usize) -> Self {
        let pixels = rows * columns + slack;
        // parts are of two bytes, numbers of four
        let values = cpu.scratch(c.next_multiple_of(DEPTH) * pixels * parts / 2);
        Self { values, columns, pixels, parts }
    }

    /// Splits pixels of `c` numbers into row `row` and those after it.
    pub(super) fn fill(&mut self, cpu: &Cpu<T>, from: &[T], c: usize, row: usize) {
        self.split(cpu, from, c, row * self.columns);
    }

    /// Splits pixels of `c` numbers into row `row`, with `around` pixels of zeros on both sides.
    pub(super) fn fill_between(&mut self, cpu: &Cpu<T>, from: &[T], c: usize, row: usize, around: usize) {
        let start = row * self.columns;
        self.clear_pixels(start..start + around);
        self.split(cpu, from, c, start + around);
        self.clear_pixels(start + self.columns - around..start + self.columns);
    }

    /// A row of zeros.
    pub(super) fn clear(&mut self, row: usize) {
        self.clear_pixels(row * self.columns..(row + 1) * self.columns);
    }

    fn split(&mut self, cpu: &Cpu<T>, from: &[T], c: usize, pixel: usize) {
        let planes = bytemuck::cast_slice_mut(&mut self.values);
        order::split_pixels(cpu.isa(), from, c, planes, (self.pixels * DEPTH, self.parts), pixel * DEPTH);
    }

    fn clear_pixels(&mut self, pixels: Range<usize>) {
        let range = pixels.start * DEPTH..pixels.end * DEPTH;
        for plane in bytemuck::cast_slice_mut::<T, u16>(&mut self.values).chunks_exact_mut(self.pixels * DEPTH) {
            plane[range.clone()].fill(0);
        }
    }

    /// The steps of some taps: (pixels from a tile's first, tap of the right operand), all taps of a plane in turn.
    pub(super) fn steps(&self, taps: &[(usize, usize)], panel: &Panel<'_>) -> Vec<Step> {
        let step = |(at, tap): (usize, usize), k: usize| Step {
            a: (self.parts * k * self.pixels + at) * ROW_BYTES,
            b: panel.step(k, tap),
        };
        (0..panel.depth_steps()).flat_map(|k| taps.iter().map(move |&tap| step(tap, k))).collect()
    }

    /// Tiles of 16 rows that begin at the pixels `starts` and take every `stride`-th, times a panel: `each(tile, numbers)` gets
    /// their products, `[16][columns of the panel]`, and is called without them some time before.
    pub(super) fn product(
        &self,
        tiles: &Tiles,
        (starts, stride): (&[usize], usize),
        steps: &[Step],
        panel: &Panel<'_>,
        mut each: impl FnMut(usize, Option<&[T]>),
    ) {
        let width = panel.width();
        // where low parts are, if there are any
        let low = (self.parts - 1) * self.pixels * ROW_BYTES;
        let last_row = starts.iter().max().unwrap_or(&0) + (SIDE - 1) * stride;
        let a_end = steps.iter().map(|s| s.a).max().unwrap_or(0) + low + (last_row + 1) * ROW_BYTES;
        let b_end = steps.iter().map(|s| s.b).max().unwrap_or(0) + panel.step_bytes();
        assert!(size_of::<T>() == size_of::<f32>() && a_end <= self.values.len() * 4 && b_end <= panel.bytes());
        let mut out = Aligned([T::ZERO; 4 * SIDE * SIDE]);
        for (i, pair) in starts.chunks(2).enumerate() {
            (2 * i..2 * i + pair.len()).for_each(|tile| each(tile, None));
            let block = Block {
                a: self.values.as_ptr().cast::<u8>().wrapping_add(pair[0] * ROW_BYTES),
                a_row: stride * ROW_BYTES,
                a_tile: pair.last().map_or(0, |&last| last.wrapping_sub(pair[0])).wrapping_mul(ROW_BYTES),
                a_low: low,
                b: panel.as_ptr(),
                b_tile: TILE_BYTES,
                b_low: panel.low_bytes(),
                out: out.0.as_mut_ptr().cast(),
                out_row: width,
                rows: pair.len(),
                columns: panel.side,
            };
            // SAFETY: the last tile of both operands lies in its memory, asserted above; `out` holds four tiles; T is f32.
            unsafe { tiles.run(steps, block, false) };
            for (tile, out) in out.0.chunks_exact(SIDE * width).take(pair.len()).enumerate() {
                each(2 * i + tile, Some(out));
            }
        }
    }
}

/// Tiles are stored in whole cache lines.
#[repr(align(64))]
struct Aligned<T>([T; 4 * SIDE * SIDE]);
