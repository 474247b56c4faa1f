//! How tiles are shared among tasks.

use super::block::Block;
use super::transform::{POINTS, TILE};
use crate::operand::cpu::Cut;

/// Elements of the transformed operand of a block.
const BLOCK_ELEMENTS: usize = 1 << 17;
/// Tiles of a block at least: the weights are read once for each.
const BLOCK_TILES: usize = 64;

/// Rows of pixels and images of a block of images `[n, h, w]` with `depth` channels, on so many threads: some rows of tiles of
/// one image, a matter of its shape alone, or several whole images, on which no bit depends.
pub(super) fn rows_and_images([n, h, w]: [usize; 3], depth: usize, threads: usize) -> (usize, usize) {
    let (down, across) = (h.div_ceil(TILE), w.div_ceil(TILE));
    let target = (BLOCK_ELEMENTS / (POINTS * depth)).max(BLOCK_TILES);
    let whole = target / (down * across);
    if whole > 0 {
        (h, whole.min(n.div_ceil(threads)).max(1))
    } else {
        let parts = (down * across).div_ceil(target).min(down);
        (down.div_ceil(parts) * TILE, 1)
    }
}

/// A task's block of images of width `w`.
pub(super) fn block(cut: &Cut, task: usize, w: usize) -> Block {
    let (images, parts) = cut.task(task);
    Block { images, rows: cut.rows_of(parts), w }
}
