//! Left operands: padded images of bf16, pixel after pixel, high parts in one plane and low parts in another.

use std::ops::Range;

use ddpm_tensor::cpu::CpuBuffer;
use ddpm_tensor::{Cpu, Element};

use super::bf16;
use super::unit::{Block, DEPTH, ROW_BYTES, SIDE, Step, TILE_BYTES, Tiles};
use super::weights::Panel;

/// Images of some rows and columns whose pixels have `width ≥ C` numbers, the rest of which is zero.
pub(super) struct Left<T: Element> {
    values: CpuBuffer<T>,
    /// Numbers of a pixel: a multiple of what a tile takes.
    pub(super) width: usize,
    columns: usize,
    /// Numbers of one plane.
    plane: usize,
}

impl<T: Element> Left<T> {
    /// Room for `rows` rows in all; whole tiles of rows may be read from any of them, `slack` pixels beyond the last.
    pub(super) fn new(cpu: &Cpu<T>, c: usize, rows: usize, columns: usize, slack: usize) -> Self {
        let width = c.next_multiple_of(DEPTH);
        let plane = (rows * columns + slack) * width;
        // two planes of two bytes a number: as much as one of four
        let values = cpu.scratch(plane);
        Self { values, width, columns, plane }
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
        let range = pixel * self.width..(pixel + from.len() / c) * self.width;
        let (high, low) = bytemuck::cast_slice_mut::<T, u16>(&mut self.values).split_at_mut(self.plane);
        bf16::split_rows(cpu.isa(), from, c, &mut high[range.clone()], &mut low[range], self.width);
    }

    fn clear_pixels(&mut self, pixels: Range<usize>) {
        let range = pixels.start * self.width..pixels.end * self.width;
        let (high, low) = bytemuck::cast_slice_mut::<T, u16>(&mut self.values).split_at_mut(self.plane);
        high[range.clone()].fill(0);
        low[range].fill(0);
    }

    /// The steps of some taps: (pixels from a tile's first, tap of the right operand), each over all numbers of a pixel.
    pub(super) fn steps(&self, taps: &[(usize, usize)], panel: &Panel<'_>) -> Vec<Step> {
        let step = |(at, tap): (usize, usize), k: usize| Step {
            a: at * self.width * 2 + k * ROW_BYTES,
            b: (tap * panel.steps() + k) * panel.step_bytes(),
        };
        taps.iter().flat_map(|&tap| (0..panel.steps()).map(move |k| step(tap, k))).collect()
    }

    /// Tiles of 16 rows that begin at the pixels `starts` and take every `stride`-th, times a panel: `out[tile][row][column]`.
    pub(super) fn product(
        &self,
        tiles: &Tiles,
        starts: &[usize],
        stride: usize,
        steps: &[Step],
        panel: &Panel<'_>,
        out: &mut [T],
    ) {
        let width = panel.width();
        let pixel = self.width * 2;
        let a_end = starts.iter().max().unwrap_or(&0) * pixel
            + steps.iter().map(|s| s.a).max().unwrap_or(0)
            + (SIDE - 1) * stride * pixel
            + ROW_BYTES;
        let b_end = steps.iter().map(|s| s.b).max().unwrap_or(0) + panel.step_bytes();
        assert!(size_of::<T>() == size_of::<f32>() && a_end <= self.plane * 2 && b_end <= panel.bytes());
        assert!(starts.len() * SIDE * width <= out.len());
        for (pair, out) in starts.chunks(2).zip(out.chunks_mut(2 * SIDE * width)) {
            let block = Block {
                a: self.values.as_ptr().cast::<u8>().wrapping_add(pair[0] * pixel),
                a_row: stride * pixel,
                a_tile: pair.last().map_or(0, |&last| last.wrapping_sub(pair[0])).wrapping_mul(pixel),
                a_low: self.plane * 2,
                b: panel.as_ptr(),
                b_tile: TILE_BYTES,
                b_low: panel.low_bytes(),
                out: out.as_mut_ptr().cast(),
                out_row: width,
                rows: pair.len(),
                columns: panel.side,
            };
            // SAFETY: the last tile of both operands and of the result lies in its memory, asserted above; T is f32.
            unsafe { tiles.run(steps, block, false) };
        }
    }
}
