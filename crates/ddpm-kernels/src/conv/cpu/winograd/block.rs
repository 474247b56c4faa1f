//! Blocks of tiles: what one task transforms, multiplies and transforms back while it stays in the second-level cache.

use std::ops::Range;

use ddpm_tensor::{Cpu, Element};

use super::plane;
use super::transform::{self, POINTS, SIDE, TILE};
use super::weights::Weights;
use crate::conv::cpu::direct::pack::Panel;
use crate::conv::cpu::direct::tile::{self, Micro, Segment, chunks};
use crate::operand::cpu::Rows;

/// Elements of the transformed operand of a block.
const BLOCK_ELEMENTS: usize = 1 << 18;
/// Tiles of a block at least: the weights are read once for each.
const BLOCK_TILES: usize = 64;

/// How the tiles of images are cut into blocks: some rows of tiles of one image, a matter of its shape alone, or several whole
/// images, on which no bit depends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// Images in all.
    n: usize,
    /// Height of an image.
    h: usize,
    /// Images of a block.
    pub(super) images: usize,
    /// Rows of tiles of a block.
    tile_rows: usize,
}

impl Cut {
    /// For `n` images of this size with `depth` channels, on so many threads.
    pub(super) fn new(n: usize, (h, w): (usize, usize), depth: usize, threads: usize) -> Self {
        let (down, across) = (h.div_ceil(TILE), w.div_ceil(TILE));
        let target = (BLOCK_ELEMENTS / (POINTS * depth)).max(BLOCK_TILES);
        let whole = target / (down * across);
        if whole > 0 {
            Self { n, h, images: whole.min(n.div_ceil(threads)), tile_rows: down }
        } else {
            let parts = (down * across).div_ceil(target).min(down);
            Self { n, h, images: 1, tile_rows: down.div_ceil(parts) }
        }
    }

    /// Parts of an image.
    pub(super) fn parts(self) -> usize {
        self.h.div_ceil(TILE * self.tile_rows)
    }

    /// Rows of pixels of a part.
    pub(super) fn part_rows(self, part: usize) -> Range<usize> {
        let step = self.tile_rows * TILE;
        part * step..((part + 1) * step).min(self.h)
    }

    pub(super) fn tasks(self) -> usize {
        self.n.div_ceil(self.images) * self.parts()
    }

    /// The images and the rows of pixels of a task.
    pub(super) fn block(self, task: usize) -> (Range<usize>, Range<usize>) {
        let first = task / self.parts() * self.images;
        (first..(first + self.images).min(self.n), self.part_rows(task % self.parts()))
    }
}

/// Pads rows of an image six at a time, for one row of tiles after the other: `row(image, strip)` takes the strips of
/// `TILE·across + 2` columns in order. Every row is made once.
pub(super) fn strips<T: Element>(
    cpu: &Cpu<T>,
    x: &Rows<'_, T>,
    images: Range<usize>,
    rows: Range<usize>,
    mut each: impl FnMut(&[T]),
) {
    let [_, _, w, c] = x.size();
    let columns = strip_columns(w);
    let row = columns * c;
    let mut strip = cpu.scratch(SIDE * row);
    for image in images {
        for (i, first) in rows.clone().step_by(TILE).enumerate() {
            // the last two rows of a strip are the first two of the next
            let kept = if i == 0 { 0 } else { SIDE - TILE };
            strip.copy_within(TILE * row..(TILE + kept) * row, 0);
            let from = first as isize - 1;
            x.padded(image, from + kept as isize..from + SIDE as isize, (1, columns), 0..c, &mut strip[kept * row..]);
            each(&strip);
        }
    }
}

/// Columns of a strip for images of width `w`.
pub(super) fn strip_columns(w: usize) -> usize {
    w.next_multiple_of(TILE) + SIDE - TILE
}

/// Convolves a block of `x` to `y`, the block's rows of pixels one image after the other: `finish(image, rows, columns, y)` may
/// change the columns of a panel in up to four rows while they are at hand.
pub(super) fn convolve<T: Element>(
    cpu: &Cpu<T>,
    micro: Micro,
    x: &Rows<'_, T>,
    weights: &Weights<T>,
    (images, rows): (Range<usize>, Range<usize>),
    y: &mut [T],
    mut finish: impl FnMut(usize, Range<usize>, Range<usize>, &mut [T]),
) {
    let isa = cpu.isa();
    let [_, _, w, c] = x.size();
    let across = w.div_ceil(TILE);
    let tiles = images.len() * rows.len().div_ceil(TILE) * across;
    let v_plane = plane(tiles * c);
    let mut v = cpu.scratch(POINTS * v_plane);
    let mut done = 0;
    strips(cpu, x, images.clone(), rows.clone(), |strip| {
        transform::input(isa, strip, strip_columns(w), c, across, &mut v[done * c..], v_plane);
        done += across;
    });
    let chunks = chunks(&[Segment { a: 0, b: 0, len: c }]);
    let m_plane = plane(tiles * 2 * micro.lanes);
    let mut m = cpu.scratch(POINTS * m_plane);
    let row = w * weights.columns;
    for panel in 0..weights.panels() {
        for point in 0..POINTS {
            let a = &v[point * v_plane..][..tiles * c];
            let out = &mut m[point * m_plane..][..m_plane];
            // the weights of the next point come nearer meanwhile: they are read for a few tiles only
            let (now, next) = (panel * POINTS + point, panel * POINTS + point + 1);
            let next = weights.panel(next.min(weights.panels() * POINTS - 1));
            multiply(micro, (a, c), tiles, &chunks, weights.panel(now), next.values, out);
        }
        let panel = weights.panel(panel * POINTS);
        let columns = panel.first..panel.first + panel.columns;
        let (mut m, mut y) = (&m[..], &mut y[..]);
        for image in images.clone() {
            for first in rows.clone().step_by(TILE) {
                let rows = first..(first + TILE).min(rows.end);
                let strip;
                (strip, y) = y.split_at_mut(rows.len() * row);
                let to = &mut strip[columns.start..];
                let valid = (rows.len(), w);
                transform::output(isa, m, m_plane, panel.width, columns.len(), valid, to, weights.columns);
                finish(image, rows, columns.clone(), strip);
                m = &m[across * panel.width..];
            }
        }
    }
}

/// `out[row][j] = Σ_k a[row·a_row + k] · panel[k][j]`, as [`tile::product`] does it, while `next` comes nearer.
fn multiply<T: Element>(
    micro: Micro,
    (a, a_row): (&[T], usize),
    rows: usize,
    chunks: &[Vec<Segment>],
    panel: Panel<'_, T>,
    next: &[T],
    out: &mut [T],
) {
    let pieces = micro.heights(rows).count() * chunks.len();
    let mut next = next.chunks(next.len().div_ceil(pieces));
    for (i, chunk) in chunks.iter().enumerate() {
        for (at, height) in micro.heights(rows) {
            prefetch(next.next().unwrap_or_default());
            tile::run(micro, (&a[at * a_row..], a_row), height, chunk, panel, i > 0, &mut out[at * panel.width..]);
        }
    }
}

/// Asks for memory that is read soon.
fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint that reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
}
