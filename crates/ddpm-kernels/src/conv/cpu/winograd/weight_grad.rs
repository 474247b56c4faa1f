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
const CHAIN_TILES: usize = 64;
/// Tiles that a task transforms at least, where an image or a group has as many.
const PART_TILES: usize = 16;
/// Elements of transformed tiles that are kept at a time, where a chain has no more.
const KEPT_ELEMENTS: usize = 1 << 22;

/// Elements of a group's sums, up to which one task does all of the group.
const OWN_SUMS: usize = 3 << 17;
/// Tiles of a group up to which tasks own channels of dU, and not points: so few are read again sooner than dU is stored.
const FEW_TILES: usize = 32;
/// Channels of such a task.
const SLICE: usize = 32;

/// Adds the gradient to `dw [3, 3, C, O]`.
pub(in crate::conv::cpu) fn weight_grad<T: Element>(
    cpu: &Cpu<T>,
    s: &Sizes,
    dy: View<'_, Cpu<T>>,
    x: &Operand<'_, Cpu<T>>,
    dw: &mut [T],
) {
    let (x, dy) = (Rows::new(cpu, x), Rows::new(cpu, &Operand::plain(dy)));
    let layout = Layout::new(Micro::new::<T>(cpu.isa()), s);
    let part_len = layout.part();
    if layout.groups_at_once(cpu.threads()) {
        group_by_group(cpu, &layout, &x, &dy, &Gradient::new(dw, s));
        return;
    }
    let kept = (KEPT_ELEMENTS / (layout.chain * part_len)).max(1) * layout.chain;
    // always of one size, so that layers of any shape share the buffer
    let mut parts = cpu.scratch((kept * part_len).max(KEPT_ELEMENTS));
    let passes = layout.passes(kept);
    let few =
        s.n.min(GROUP) * layout.image_tiles() <= FEW_TILES && s.c >= 4 * SLICE && passes.iter().all(|p| p[0].whole());
    let mut sums = cpu.scratch(0);
    let dw = Gradient::new(dw, s);
    for sections in passes {
        let jobs: Vec<_> = sections.iter().flat_map(|s| s.parts.clone().map(move |part| (s, part))).collect();
        let out = DisjointMut::new(&mut parts);
        cpu.parallel(jobs.len(), s.nanoseconds(), |i| {
            // SAFETY: parts lie one after the other.
            let to = unsafe { out.part(i * part_len..(i + 1) * part_len) };
            layout.transform(cpu, &x, &dy, &jobs[i].0.images, jobs[i].1, to);
        });
        let (all, parts) = (0..s.c, &parts[..]);
        if few {
            let slices = s.c.div_ceil(SLICE);
            cpu.parallel(slices, s.nanoseconds(), |i| {
                let channels = i * s.c / slices..(i + 1) * s.c / slices;
                let du_plane = plane(channels.len() * layout.width);
                let mut du = cpu.scratch(POINTS * du_plane);
                for section in &sections {
                    for (point, du) in du.chunks_exact_mut(du_plane).enumerate() {
                        layout.multiply(parts, section, point, channels.clone(), du);
                    }
                    dw.add(cpu, (&du, du_plane), layout.width, channels.clone(), channels.start);
                }
            });
            continue;
        }
        let du_plane = layout.du_plane();
        if sums.is_empty() {
            sums = cpu.scratch(sections.len() * POINTS * du_plane);
        }
        let out = DisjointMut::new(&mut sums);
        cpu.parallel(sections.len() * POINTS, s.nanoseconds(), |i| {
            // SAFETY: planes lie one after the other.
            let du = unsafe { out.part(i * du_plane..(i + 1) * du_plane) };
            layout.multiply(parts, &sections[i / POINTS], i % POINTS, all.clone(), du);
        });
        if sections.iter().all(|s| s.last) {
            dw.add_groups(cpu, &layout, &sums[..sections.len() * POINTS * du_plane]);
        }
    }
}

/// Adds the gradient, each group of images by one task: its sums and the tiles that are added next stay in its cache.
fn group_by_group<T: Element>(cpu: &Cpu<T>, layout: &Layout, x: &Rows<'_, T>, dy: &Rows<'_, T>, dw: &Gradient<'_, T>) {
    let s = &layout.s;
    let (part_len, du_plane) = (layout.part(), layout.du_plane());
    let groups = s.n.div_ceil(GROUP);
    let mut sums = cpu.scratch(groups * POINTS * du_plane);
    let out = DisjointMut::new(&mut sums);
    cpu.parallel(groups, s.nanoseconds(), |group| {
        // SAFETY: groups lie one after the other.
        let sums = unsafe { out.part(group * POINTS * du_plane..(group + 1) * POINTS * du_plane) };
        let images = group * GROUP..((group + 1) * GROUP).min(s.n);
        let count = layout.parts(images.len());
        let mut parts = cpu.scratch(layout.chain * part_len);
        for first in (0..count).step_by(layout.chain) {
            let chain = first..(first + layout.chain).min(count);
            for (part, to) in chain.clone().zip(parts.chunks_exact_mut(part_len)) {
                layout.transform(cpu, x, dy, &images, part, to);
            }
            let section = Section { images: images.clone(), last: chain.end == count, parts: chain, at: 0 };
            for (point, du) in sums.chunks_exact_mut(du_plane).enumerate() {
                layout.multiply(&parts, &section, point, 0..s.c, du);
            }
        }
    });
    dw.add_groups(cpu, layout, &sums);
}

/// Parts of a group that are transformed and multiplied in one pass.
struct Section {
    /// The images of the group.
    images: Range<usize>,
    parts: Range<usize>,
    /// Where the parts begin, in parts.
    at: usize,
    /// Whether no parts of the group follow.
    last: bool,
}

impl Section {
    fn whole(&self) -> bool {
        self.parts.start == 0 && self.last
    }
}

/// `dw [3, 3, C, O]`, to which threads add rows of their own.
struct Gradient<'a, T> {
    dw: DisjointMut<'a, T>,
    c: usize,
    o: usize,
}

impl<'a, T: Element> Gradient<'a, T> {
    fn new(dw: &'a mut [T], s: &Sizes) -> Self {
        Self { dw: DisjointMut::new(dw), c: s.c, o: s.o }
    }

    /// Adds Gᵀ dU G of groups, one after the other.
    fn add_groups(&self, cpu: &Cpu<T>, layout: &Layout, sums: &[T]) {
        let du_plane = layout.du_plane();
        cpu.parallel(self.c, self.c * self.o * 8, |c| {
            for du in sums.chunks_exact(POINTS * du_plane) {
                self.add(cpu, (du, du_plane), layout.width, c..c + 1, 0);
            }
        });
    }

    /// Adds Gᵀ dU G of some channels, the first of which is row `channels.start − first` of `du`. Groups are added in order: each
    /// element of the gradient is a chain of its own.
    fn add(&self, cpu: &Cpu<T>, (du, du_plane): (&[T], usize), width: usize, channels: Range<usize>, first: usize) {
        let mut sums = cpu.scratch(9 * self.o);
        for c in channels {
            let du = &du[(c - first) * width..];
            transform::weight_adjoint(cpu.isa(), du, du_plane, self.o, &mut sums);
            for (tap, sums) in sums.chunks_exact(self.o).enumerate() {
                let start = (tap * self.c + c) * self.o;
                // SAFETY: every thread has channels of its own.
                let grad = unsafe { self.dw.part(start..start + self.o) };
                for (grad, &sum) in grad.iter_mut().zip(sums) {
                    *grad += sum;
                }
            }
        }
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

    /// Elements of a plane of dU.
    fn du_plane(&self) -> usize {
        plane(self.s.c * self.width)
    }

    /// Whether each group of images is done by one thread: where its sums are small, and no thread waits long for the others.
    fn groups_at_once(&self, threads: usize) -> bool {
        let groups = self.s.n.div_ceil(GROUP);
        let rounds = groups.div_ceil(threads);
        POINTS * self.du_plane() <= OWN_SUMS && 4 * groups >= 3 * rounds * threads
    }

    /// Parts of an image, if not less than one.
    fn image_parts(&self) -> usize {
        self.s.h.div_ceil(TILE * self.tile_rows)
    }

    /// Parts of a group of so many images.
    fn parts(&self, images: usize) -> usize {
        images.div_ceil(self.images) * self.image_parts()
    }

    /// Tiles of an image.
    fn image_tiles(&self) -> usize {
        self.s.h.div_ceil(TILE) * self.s.w.div_ceil(TILE)
    }

    /// What is done at a time, of which `kept` parts are kept: several whole groups, or some parts of a larger one.
    fn passes(&self, kept: usize) -> Vec<Vec<Section>> {
        let n = self.s.n;
        let groups = (0..n).step_by(GROUP).map(|first| first..(first + GROUP).min(n));
        let sections = groups.flat_map(|images| {
            let count = self.parts(images.len());
            (0..count).step_by(kept).map(move |first| {
                let parts = first..(first + kept).min(count);
                Section { images: images.clone(), at: 0, last: parts.end == count, parts }
            })
        });
        let mut passes: Vec<Vec<Section>> = Vec::new();
        for section in sections {
            let at: usize = passes.last().map_or(0, |p| p.iter().map(|s| s.parts.len()).sum());
            match passes.last_mut() {
                Some(pass) if pass[0].whole() && section.whole() && at + section.parts.len() <= kept => {
                    pass.push(Section { at, ..section });
                }
                _ => passes.push(vec![section]),
            }
        }
        passes
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
            let strip = if rows.len() == TILE && columns == self.s.w {
                &dy.first_part()[(image * self.s.h + rows.start) * columns * o..]
            } else {
                // with zeros where tiles hang over the edge
                let first = rows.start as isize;
                dy.padded(image, first..first + TILE as isize, (0, columns), 0..o, &mut strip);
                &strip
            };
            for (first, width) in self.panels() {
                let dm = &mut dm[first * self.most + i * across * width..];
                transform::output_adjoint(cpu.isa(), strip, columns, o, first, (dm, self.dm_plane(), width));
            }
        }
    }

    /// First column and width of each panel of dM.
    fn panels(&self) -> impl Iterator<Item = (usize, usize)> {
        let panel = 2 * self.micro.lanes;
        (0..self.width).step_by(panel).map(move |first| (first, panel.min(self.width - first)))
    }

    /// dU of one point and some channels, `[channels, width]`: the sum over a section's parts of `Vᵀ dM`; added to what is there
    /// if earlier parts of the group are.
    fn multiply<T: Element>(&self, parts: &[T], s: &Section, point: usize, channels: Range<usize>, du: &mut [T]) {
        let c = self.s.c;
        let parts = &parts[s.at * self.part()..][..s.parts.len() * self.part()];
        assert!(channels.end <= c && channels.len() * self.width <= du.len());
        let lens: Vec<usize> = s.parts.clone().map(|part| self.block(s.images.len(), part).tiles()).collect();
        let mut segments = Vec::with_capacity(self.chain);
        for (first, width) in self.panels() {
            for (i, (lens, chain)) in lens.chunks(self.chain).zip(parts.chunks(self.chain * self.part())).enumerate() {
                segments.clear();
                segments.extend(lens.iter().enumerate().map(|(i, &len)| {
                    assert!(len <= self.most);
                    Segment { a: i * self.part() / c, b: i * self.part() / width, len }
                }));
                let dm = POINTS * self.v_plane() + point * self.dm_plane() + first * self.most;
                for (at, height) in self.micro.heights(channels.len()) {
                    let tile = Tile {
                        a: &raw const chain[point * self.v_plane() + channels.start + at],
                        a_row: 1,
                        a_k: c,
                        b: &raw const chain[dm],
                        b_row: width,
                        out: &raw mut du[at * self.width + first],
                        out_row: self.width,
                    };
                    let add = s.parts.start > 0 || i > 0;
                    // SAFETY: a part's planes hold `most` tiles and more, no segment is longer, and all parts and the plane
                    // of dU are in their slices, asserted above.
                    unsafe { self.micro.run(height, width / self.micro.lanes, &segments, tile, add) };
                }
            }
        }
    }
}
