//! Weights in the order in which tiles read them: panels of up to 32 columns, in which each step (32 numbers of k, then a tap of
//! them) has one or two tiles of high parts, then as many of low parts if there are any.

use std::sync::Arc;

use ddpm_tensor::cpu::CpuBuffer;
use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, Isa, View};

use super::order::{self, Square};
use super::unit::{DEPTH, SIDE, TILE_BYTES};
use crate::conv::cpu::made;

/// Numbers of u32 (pairs) in a tile.
const TILE: usize = TILE_BYTES / 4;

/// The first tile, and the one `low` pairs later if there is one.
fn squares(tiles: &mut [u32], low: usize) -> (&mut Square, Option<&mut Square>) {
    let (high, low) = tiles.split_at_mut(low.min(tiles.len()));
    let square = |tile| bytemuck::from_bytes_mut(bytemuck::cast_slice_mut(tile));
    (square(&mut high[..TILE]), low.get_mut(..TILE).map(square))
}

/// A packed right operand `[taps · depth, columns]`.
pub(super) struct Weights<T: Element> {
    tiles: Arc<CpuBuffer<T>>,
    taps: usize,
    depth: usize,
    columns: usize,
    parts: usize,
}

/// Some columns of it.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    tiles: &'a [u32],
    /// First column.
    pub(super) first: usize,
    /// Columns that count.
    pub(super) columns: usize,
    /// Tiles next to each other, 1 or 2.
    pub(super) side: usize,
    taps: usize,
    /// Steps of k of one tap.
    steps: usize,
    parts: usize,
}

impl<T: Element> Weights<T> {
    /// For `y = x·w`: k counts input channels, columns are output channels; `w [k, k, C, O]`.
    pub(super) fn of_outputs(cpu: &Cpu<T>, parts: usize, w: View<'_, Cpu<T>>) -> Self {
        let [kernel, _, c, o] = w.shape().nhwc();
        Self::new(cpu, parts, w, "tiles", (kernel * kernel, c, o), |isa, w, tap, k, first, tiles, low| {
            let size = (DEPTH.min(c - k), SIDE.min(o - first));
            let (high, low) = squares(tiles, low);
            order::pair_tile(isa, &w[(tap * c + k) * o + first..], o, size, high, low);
        })
    }

    /// For `dx = dy·wᵀ`: k counts output channels, columns are input channels.
    pub(super) fn of_inputs(cpu: &Cpu<T>, parts: usize, w: View<'_, Cpu<T>>) -> Self {
        let [kernel, _, c, o] = w.shape().nhwc();
        Self::new(cpu, parts, w, "tiles, turned", (kernel * kernel, o, c), |isa, w, tap, k, first, tiles, low| {
            let size = (SIDE.min(c - first), DEPTH.min(o - k));
            let (high, low) = squares(tiles, low);
            order::pair_columns(isa, &w[(tap * c + first) * o + k..], o, size, high, low);
        })
    }

    /// `fill(isa, weights, tap, first k, first column, tiles from the one to fill on, distance of its low part)`.
    fn new(
        cpu: &Cpu<T>,
        parts: usize,
        w: View<'_, Cpu<T>>,
        maker: &'static str,
        (taps, depth, columns): (usize, usize, usize),
        fill: impl Fn(Isa, &[T], usize, usize, usize, &mut [u32], usize) + Send + Sync,
    ) -> Self {
        let tiles = made(w, maker, parts, || {
            let (steps, wide) = (depth.div_ceil(DEPTH), columns.div_ceil(SIDE));
            let mut tiles = cpu.scratch(taps * steps * wide * parts * TILE);
            let out = DisjointMut::new(&mut tiles);
            let panels = wide.div_ceil(2);
            cpu.parallel(panels * taps, taps * depth * columns, |task| {
                let (panel, tap) = (task / taps, task % taps);
                let side = (wide - 2 * panel).min(2);
                let len = side * parts * TILE;
                for step in 0..steps {
                    let start = 2 * panel * taps * steps * parts * TILE + (step * taps + tap) * len;
                    // SAFETY: every task has its own panel or tap.
                    let tiles = bytemuck::cast_slice_mut(unsafe { out.part(start..start + len) });
                    for tile in 0..side {
                        let column = (2 * panel + tile) * SIDE;
                        fill(
                            cpu.isa(),
                            w.as_slice(),
                            tap,
                            step * DEPTH,
                            column,
                            &mut tiles[tile * TILE..],
                            side * TILE,
                        );
                    }
                }
            });
            tiles
        });
        Self { tiles, taps, depth, columns, parts }
    }

    pub(super) fn panels(&self) -> impl Iterator<Item = Panel<'_>> {
        let steps = self.depth.div_ceil(DEPTH);
        let wide = self.columns.div_ceil(SIDE);
        let tiles: &[u32] = bytemuck::cast_slice(&self.tiles);
        (0..wide).step_by(2).map(move |tile| {
            let side = (wide - tile).min(2);
            let per_column = self.taps * steps * self.parts * TILE;
            let first = tile * SIDE;
            let columns = (self.columns - first).min(side * SIDE);
            Panel {
                tiles: &tiles[tile * per_column..][..side * per_column],
                first,
                columns,
                side,
                taps: self.taps,
                steps,
                parts: self.parts,
            }
        })
    }
}

impl Panel<'_> {
    /// Columns with padding.
    pub(super) fn width(&self) -> usize {
        self.side * SIDE
    }

    /// Steps of k of one tap.
    pub(super) fn depth_steps(&self) -> usize {
        self.steps
    }

    /// Where step `k` of a tap begins, in bytes.
    pub(super) fn step(&self, k: usize, tap: usize) -> usize {
        (k * self.taps + tap) * self.step_bytes()
    }

    /// The first tile.
    pub(super) fn as_ptr(&self) -> *const u8 {
        self.tiles.as_ptr().cast()
    }

    /// Bytes of all its tiles.
    pub(super) fn bytes(&self) -> usize {
        self.tiles.len() * 4
    }

    /// Bytes from one step to the next.
    pub(super) fn step_bytes(&self) -> usize {
        self.side * self.parts * TILE_BYTES
    }

    /// Bytes from a high tile to its low one, if there is one.
    pub(super) fn low_bytes(&self) -> usize {
        (self.parts - 1) * self.side * TILE_BYTES
    }
}
