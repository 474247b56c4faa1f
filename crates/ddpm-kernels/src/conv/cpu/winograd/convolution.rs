//! A convolution of transformed tiles, in one of two orders; both give the same bits.

use std::ops::Range;
use std::sync::Arc;

use ddpm_tensor::cpu::CpuBuffer;
use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element};

use super::block::{Block, input, output};
use super::cut;
use super::plane;
use super::transform::POINTS;
use super::weights::{Weights, point};
use crate::conv::cpu::direct::pack::Panel;
use crate::conv::cpu::direct::tile::{self, Micro, Segment, chunks};
use crate::operand::cpu::{Cut, Rows};

/// Tiles of all images up to which it does not pay to store transformed weights.
const FEW_TILES: usize = 128;

/// A convolution that is ready to make blocks of its result.
pub(super) struct Convolution<'a, T: Element> {
    x: &'a Rows<'a, T>,
    weights: Weights<'a, T>,
    chunks: Vec<Vec<Segment>>,
    ready: Ready<T>,
}

enum Ready<T: Element> {
    /// The transformed weights: they pass by a block of tiles that stays in the cache.
    Weights(Arc<CpuBuffer<T>>),
    /// The products of all tiles, `[panel][point][tile][width]`: where tiles are few, they passed by a panel of weights that
    /// stayed in the cache.
    Products(CpuBuffer<T>),
}

impl<'a, T: Element> Convolution<'a, T> {
    pub(super) fn new(
        cpu: &Cpu<T>,
        x: &'a Rows<'a, T>,
        weights: Weights<'a, T>,
        cut: &Cut,
        nanoseconds: usize,
    ) -> Self {
        let chunks = chunks(&[Segment { a: 0, b: 0, len: weights.size().0 }]);
        let mut this = Self { x, weights, chunks, ready: Ready::Products(cpu.scratch(0)) };
        this.ready = if this.all().tiles() <= FEW_TILES {
            Ready::Products(this.products(cpu, cut, nanoseconds))
        } else {
            Ready::Weights(weights.packed(cpu))
        };
        this
    }

    /// All images.
    fn all(&self) -> Block {
        let [n, h, w, _] = self.x.size();
        Block { images: 0..n, rows: 0..h, w }
    }

    /// Elements of the products of a panel and one point, for so many tiles.
    fn products_plane(&self, tiles: usize) -> usize {
        plane(tiles * 2 * self.weights.micro.lanes)
    }

    /// Makes a block of the result, its rows of pixels one image after the other: `finish(image, rows, columns, y)` may change
    /// some columns of up to four rows while they are at hand.
    pub(super) fn block(
        &self,
        cpu: &Cpu<T>,
        block: &Block,
        y: &mut [T],
        mut finish: impl FnMut(usize, Range<usize>, Range<usize>, &mut [T]),
    ) {
        let (isa, lanes, (depth, o)) = (cpu.isa(), self.weights.micro.lanes, self.weights.size());
        match &self.ready {
            Ready::Weights(u) => {
                let tiles = block.tiles();
                let (v_plane, m_plane) = (plane(tiles * depth), self.products_plane(tiles));
                let (mut v, mut m) = (cpu.scratch(POINTS * v_plane), cpu.scratch(POINTS * m_plane));
                input(cpu, self.x, block, &mut v, v_plane);
                for (panel, u) in u.chunks_exact(self.weights.panel_len(depth)).enumerate() {
                    let columns = self.weights.columns(panel);
                    for p in 0..POINTS {
                        let a = (&v[p * v_plane..][..tiles * depth], depth);
                        // the weights of the next point come nearer meanwhile: a block reads them for a few tiles only
                        let next = if p + 1 < POINTS { point(u, columns, lanes, depth, p + 1).values } else { &[] };
                        let b = point(u, columns, lanes, depth, p);
                        multiply(self.weights.micro, a, tiles, &self.chunks, b, next, &mut m[p * m_plane..]);
                    }
                    output(isa, (&m, m_plane), columns, block, o, y, &mut finish);
                }
            }
            Ready::Products(m) => {
                let m_plane = self.products_plane(self.all().tiles());
                let before = self.all().tiles_before(block);
                for (panel, m) in m.chunks_exact(POINTS * m_plane).enumerate() {
                    let columns = self.weights.columns(panel);
                    output(isa, (&m[before * columns.width..], m_plane), columns, block, o, y, &mut finish);
                }
            }
        }
    }

    /// The products of all tiles.
    fn products(&self, cpu: &Cpu<T>, cut: &Cut, nanoseconds: usize) -> CpuBuffer<T> {
        let (micro, depth) = (self.weights.micro, self.weights.size().0);
        let blocks: Vec<Block> = (0..cut.tasks()).map(|task| cut::block(cut, task, self.x.size()[2])).collect();
        let v_plane = plane(blocks.first().map_or(0, Block::tiles) * depth);
        let v_len = POINTS * v_plane;
        let mut v = cpu.scratch(blocks.len() * v_len);
        let out = DisjointMut::new(&mut v);
        cpu.parallel(blocks.len(), nanoseconds, |task| {
            // SAFETY: blocks lie one after the other.
            let v = unsafe { out.part(task * v_len..(task + 1) * v_len) };
            input(cpu, self.x, &blocks[task], v, v_plane);
        });
        let m_plane = self.products_plane(self.all().tiles());
        let m_len = POINTS * m_plane;
        let mut m = cpu.scratch(self.weights.panels() * m_len);
        let out = DisjointMut::new(&mut m);
        let kept = self.weights.are_kept().then(|| self.weights.packed(cpu));
        let u_len = self.weights.panel_len(depth);
        cpu.parallel(self.weights.panels(), nanoseconds, |panel| {
            // SAFETY: panels lie one after the other.
            let m = unsafe { out.part(panel * m_len..(panel + 1) * m_len) };
            let columns = self.weights.columns(panel);
            for (i, chunk) in self.chunks.iter().enumerate() {
                let mut transformed;
                // the weights of all rows, or of those of the chunk
                let (u, rows, chunk) = if let Some(kept) = &kept {
                    (&kept[panel * u_len..(panel + 1) * u_len], depth, chunk[0])
                } else {
                    let rows = chunk[0].a..chunk[0].a + chunk[0].len;
                    transformed = cpu.scratch(self.weights.panel_len(rows.len()));
                    self.weights.transform(cpu, panel, rows.clone(), &mut transformed);
                    (&transformed[..], rows.len(), Segment { b: 0, ..chunk[0] })
                };
                for p in 0..POINTS {
                    let b = point(u, columns, micro.lanes, rows, p);
                    let mut m = &mut m[p * m_plane..];
                    for (block, v) in blocks.iter().zip(v.chunks_exact(v_len)) {
                        for (at, height) in micro.heights(block.tiles()) {
                            let a = (&v[p * v_plane + at * depth..], depth);
                            tile::run(micro, a, height, &[chunk], b, i > 0, &mut m[at * columns.width..]);
                        }
                        m = &mut m[block.tiles() * columns.width..];
                    }
                }
            }
        });
        m
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
    let mut next = next.chunks(next.len().div_ceil(pieces).max(1));
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
