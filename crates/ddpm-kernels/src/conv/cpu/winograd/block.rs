//! Blocks of tiles and how they are transformed: some rows of tiles of one image, or several whole images.

use std::ops::Range;

use ddpm_tensor::{Cpu, Element, Isa};

use super::transform::{self, SIDE, TILE};
use super::weights::Columns;
use crate::operand::cpu::Rows;

/// Rows of pixels of some images; all of them if the images are several.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) images: Range<usize>,
    /// From the first row of a tile to the last of a tile or the image.
    pub(super) rows: Range<usize>,
    /// Width of an image.
    pub(super) w: usize,
}

impl Block {
    /// Tiles of a row of pixels.
    pub(super) fn across(&self) -> usize {
        self.w.div_ceil(TILE)
    }

    pub(super) fn tiles(&self) -> usize {
        self.images.len() * self.rows.len().div_ceil(TILE) * self.across()
    }

    /// Tiles of these images that come before a part of them.
    pub(super) fn tiles_before(&self, part: &Self) -> usize {
        let images = Self { images: self.images.start..part.images.start, ..self.clone() };
        let rows = Self { images: 0..1, rows: self.rows.start..part.rows.start, w: self.w };
        images.tiles() + rows.tiles()
    }

    /// The image and the rows of pixels of each row of tiles.
    pub(super) fn tile_rows(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let of_image = move |image| {
            self.rows.clone().step_by(TILE).map(move |first| (image, first..(first + TILE).min(self.rows.end)))
        };
        self.images.clone().flat_map(of_image)
    }
}

/// V of a block of `x`: point p of tile t at `v[p·plane + t·C..]`.
pub(super) fn input<T: Element>(cpu: &Cpu<T>, x: &Rows<'_, T>, block: &Block, v: &mut [T], plane: usize) {
    let c = x.size()[3];
    // a row of tiles reads this many columns and six rows
    let columns = block.across() * TILE + SIDE - TILE;
    let row = columns * c;
    let mut strip = cpu.scratch(SIDE * row);
    for (i, (image, rows)) in block.tile_rows().enumerate() {
        // the last two rows of a strip are the first two of the next
        let kept = if rows.start == block.rows.start { 0 } else { SIDE - TILE };
        strip.copy_within(TILE * row..(TILE + kept) * row, 0);
        let first = rows.start as isize - 1;
        x.padded(image, first + kept as isize..first + SIDE as isize, (1, columns), 0..c, &mut strip[kept * row..]);
        let v = &mut v[i * block.across() * c..];
        transform::input(cpu.isa(), &strip, columns, c, block.across(), v, plane);
    }
}

/// The results of some columns of a block, `y [rows of all images, w, o]`, from their products (point p of tile t at
/// `m[p·plane + t·width..]`); `finish(image, rows, columns, y)` may change the columns of up to four rows while they are at hand.
pub(super) fn output<T: Element>(
    isa: Isa,
    (m, plane): (&[T], usize),
    columns: Columns,
    block: &Block,
    o: usize,
    y: &mut [T],
    finish: &mut impl FnMut(usize, Range<usize>, Range<usize>, &mut [T]),
) {
    let Columns { first, count, width } = columns;
    let mut y = y;
    for (i, (image, rows)) in block.tile_rows().enumerate() {
        let strip;
        (strip, y) = y.split_at_mut(rows.len() * block.w * o);
        let (m, valid) = (&m[i * block.across() * width..], (rows.len(), block.w));
        transform::output(isa, (m, plane, width), count, valid, &mut strip[first..], o);
        finish(image, rows, first..first + count, strip);
    }
}
