//! How tiles are shared among tasks.

use super::block::Block;
use super::transform::{POINTS, TILE};

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
    /// Height and width of an image.
    h: usize,
    w: usize,
    /// Images of a block.
    pub(super) images: usize,
    /// Rows of pixels of a block.
    pub(super) rows: usize,
}

impl Cut {
    /// For images `[n, h, w]` with `depth` channels, on so many threads.
    pub(super) fn new([n, h, w]: [usize; 3], depth: usize, threads: usize) -> Self {
        let (down, across) = (h.div_ceil(TILE), w.div_ceil(TILE));
        let target = (BLOCK_ELEMENTS / (POINTS * depth)).max(BLOCK_TILES);
        let whole = target / (down * across);
        if whole > 0 {
            Self { n, h, w, images: whole.min(n.div_ceil(threads)).max(1), rows: h }
        } else {
            let parts = (down * across).div_ceil(target).min(down);
            Self { n, h, w, images: 1, rows: down.div_ceil(parts) * TILE }
        }
    }

    /// Parts of an image.
    pub(super) fn parts(self) -> usize {
        self.h.div_ceil(self.rows)
    }

    /// Pixels of a part.
    pub(super) fn pixels(self, part: usize) -> usize {
        self.rows.min(self.h - part * self.rows) * self.w
    }

    pub(super) fn tasks(self) -> usize {
        self.n.div_ceil(self.images) * self.parts()
    }

    pub(super) fn block(self, task: usize) -> Block {
        let first = task / self.parts() * self.images;
        let row = task % self.parts() * self.rows;
        Block { images: first..(first + self.images).min(self.n), rows: row..(row + self.rows).min(self.h), w: self.w }
    }
}
