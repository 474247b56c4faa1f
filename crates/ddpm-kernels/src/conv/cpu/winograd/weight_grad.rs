//! The gradient of the weights: `dw = Gᵀ [Σ_tiles (Bᵀ d B) ⊙ (A dy Aᵀ)] G`, the adjoint of the result in its weights.

use std::ops::Range;

use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::{Cpu, Element, View};

use super::block::{Block, input};
use super::plane;
use super::transform::{self, POINTS, TILE};
use crate::conv::cpu::Sizes;
use crate::conv::cpu::direct::tile::{Micro, Segment, Tile};
use crate::operand::Operand;
use crate::operand::cpu::Rows;
use crate::sums::GROUP;

/// Tiles whose products are one chain of sums, nearly: what they read of a panel stays in the first-level cache.
const CHAIN_TILES: usize = 128;
/// Tiles that a task transforms at least, where an image or a group has as many.
const PART_TILES: usize = 16;
/// Elements of transformed tiles that are kept at a time, where a chain has no more.
const KEPT_ELEMENTS: usize = 1 << 22;

/// Adds the gradient to `dw [3, 3, C, O]`.
pub(in crate::conv::cpu) fn weight_grad<T: Element>(
    cpu: &Cpu<T>,
    s: &Sizes,
    dy: View<'_, Cpu<T>>,
    x: &Operand<'_, Cpu<T>>,
    dw: &mut [T],
) {
    let rows = Rows::new(cpu, x);
    let dy = Rows::new(cpu, &Operand::plain(dy));
    let micro = Micro::new::<T>(cpu.isa());
    let layout = Layout::new(micro, s);
    let du_plane = plane(s.c * layout.width);
    let mut du = cpu.scratch(POINTS * du_plane);
    let kept = (KEPT_ELEMENTS / (layout.chain * layout.part())).max(1) * layout.chain;
    let mut parts = cpu.scratch((kept * layout.part()).max(KEPT_ELEMENTS));
    for group in (0..s.n).step_by(GROUP) {
        let images = group..(group + GROUP).min(s.n);
        let count = layout.parts(images.len());
        for first in (0..count).step_by(kept) {
            let number = kept.min(count - first);
            let out = DisjointMut::new(&mut parts);
            cpu.parallel(number, s.nanoseconds(), |i| {
                // SAFETY: parts lie one after the other.
                let part = unsafe { out.part(i * layout.part()..(i + 1) * layout.part()) };
                layout.transform(cpu, &rows, &dy, &images, first + i, part);
            });
            let out = DisjointMut::new(&mut du);
            cpu.parallel(POINTS, s.nanoseconds(), |point| {
                // SAFETY: planes lie one after the other.
                let du = unsafe { out.part(point * du_plane..(point + 1) * du_plane) };
                let lens: Vec<usize> =
                    (first..first + number).map(|part| layout.block(images.len(), part).tiles()).collect();
                layout.multiply(&parts, &lens, point, du, first > 0);
            });
        }
        // groups are added in order: each element of the gradient is a chain of its own
        let out = DisjointMut::new(dw);
        cpu.parallel(s.c, s.c * s.o * 8, |c| {
            let mut sums = cpu.scratch(9 * s.o);
            transform::weight_adjoint(cpu.isa(), &du[c * layout.width..], du_plane, s.o, &mut sums);
            for (tap, sums) in sums.chunks_exact(s.o).enumerate() {
                // SAFETY: every task has a channel of its own.
                let grad = unsafe { out.part((tap * s.c + c) * s.o..(tap * s.c + c + 1) * s.o) };
                for (grad, &sum) in grad.iter_mut().zip(sums) {
                    *grad += sum;
                }
            }
        });
    }
}

/// How the tiles of a group of images are cut into parts, each transformed by one task, and how a part lies in memory: V as
/// `[point][tile][C]`, then dM as `[point][panel of O][tile][columns of the panel]`. All of it is a matter of one image's shape.
struct Layout {
    micro: Micro,
    s: Sizes,
    /// Columns of dM with padding.
    width: usize,
    /// Images of a part, or
    images: usize,
    /// rows of tiles of one image.
    tile_rows: usize,
    /// Most tiles of a part.
    most: usize,
    /// Parts of a chain of sums.
    chain: usize,
}

impl Layout {
    fn new(micro: Micro, s: &Sizes) -> Self {
        let (down, across) = (s.h.div_ceil(TILE), s.w.div_ceil(TILE));
        let whole = (PART_TILES / (down * across)).min(GROUP);
        let tile_rows = if whole > 0 { down } else { PART_TILES.div_ceil(across).min(down) };
        let images = whole.max(1);
        let most = images * tile_rows * across;
        let chain = (CHAIN_TILES / most).max(1);
        Self { micro, s: *s, width: s.o.next_multiple_of(micro.lanes), images, tile_rows, most, chain }
    }

    /// Elements of a plane of V; a tile more than there are, lest the planes meet in one set of the caches.
    fn v_plane(&self) -> usize {
        (self.most + 1) * self.s.c
    }

    /// Elements of a plane of dM: whole rows of any panel.
    fn dm_plane(&self) -> usize {
        (self.most + 1) * self.width
    }

    /// Elements of a part: whole rows of V, and of any panel of dM.
    fn part(&self) -> usize {
        (POINTS * (self.v_plane() + self.dm_plane())).next_multiple_of(self.s.c * 2 * self.micro.lanes)
    }

    /// Parts of an image, if not less than one.
    fn image_parts(&self) -> usize {
        self.s.h.div_ceil(TILE * self.tile_rows)
    }

    /// Parts of a group of so many images.
    fn parts(&self, images: usize) -> usize {
        images.div_ceil(self.images) * self.image_parts()
    }

    /// The images (counted from the group's first) and rows of a part.
    fn block(&self, images: usize, part: usize) -> Block {
        let first = part / self.image_parts() * self.images;
        let step = TILE * self.tile_rows;
        let row = part % self.image_parts() * step;
        let rows = row..(row + step).min(self.s.h);
        Block { images: first..(first + self.images).min(images), rows, w: self.s.w }
    }

    /// Makes V and dM of a part.
    fn transform<T: Element>(
        &self,
        cpu: &Cpu<T>,
        x: &Rows<'_, T>,
        dy: &Rows<'_, T>,
        group: &Range<usize>,
        part: usize,
        out: &mut [T],
    ) {
        let (v, dm) = out.split_at_mut(POINTS * self.v_plane());
        let mut block = self.block(group.len(), part);
        block.images = group.start + block.images.start..group.start + block.images.end;
        input(cpu, x, &block, v, self.v_plane());
        let (o, across) = (self.s.o, block.across());
        let columns = across * TILE;
        let mut strip = cpu.scratch(TILE * columns * o);
        for (i, (image, rows)) in block.tile_rows().enumerate() {
            let first = rows.start as isize;
            dy.padded(image, first..first + TILE as isize, (0, columns), 0..o, &mut strip);
            for (first, width) in self.panels() {
                let dm = &mut dm[first * self.most + i * across * width..];
                transform::output_adjoint(cpu.isa(), &strip, columns, o, first, dm, self.dm_plane(), width);
            }
        }
    }

    /// First column and width of each panel of dM.
    fn panels(&self) -> impl Iterator<Item = (usize, usize)> {
        let panel = 2 * self.micro.lanes;
        (0..self.width).step_by(panel).map(move |first| (first, panel.min(self.width - first)))
    }

    /// dU of one point, `[C, width]`: the sum over parts with `lens` tiles each of `Vᵀ dM`; added to what is there if `add`.
    fn multiply<T: Element>(&self, parts: &[T], lens: &[usize], point: usize, du: &mut [T], add: bool) {
        let c = self.s.c;
        assert!(lens.len() * self.part() <= parts.len() && c * self.width <= du.len());
        let mut segments = Vec::with_capacity(self.chain);
        for (first, width) in self.panels() {
            for (i, lens) in lens.chunks(self.chain).enumerate() {
                let chain = &parts[i * self.chain * self.part()..][..lens.len() * self.part()];
                segments.clear();
                segments.extend(lens.iter().enumerate().map(|(i, &len)| {
                    assert!(len <= self.most);
                    Segment { a: i * self.part() / c, b: i * self.part() / width, len }
                }));
                let dm = POINTS * self.v_plane() + point * self.dm_plane() + first * self.most;
                for (at, height) in self.micro.heights(c) {
                    let tile = Tile {
                        a: &raw const chain[point * self.v_plane() + at],
                        a_row: 1,
                        a_k: c,
                        b: &raw const chain[dm],
                        b_row: width,
                        out: &raw mut du[at * self.width + first],
                        out_row: self.width,
                    };
                    // SAFETY: a part's planes hold `most` tiles and more, no segment is longer, and all parts and the plane
                    // of dU are in their slices, asserted above.
                    unsafe { self.micro.run(height, width / self.micro.lanes, &segments, tile, add || i > 0) };
                }
            }
        }
    }
}
