//! Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray 2016): 36 products for 16 pixels instead of 144.
//!
//! A tile of 6x6 pixels of the operand, its weights and the tile of 4x4 results are transformed, and each of the 36 points is a
//! product of matrices over channels, which the register tile of the direct engine computes. Every number is a chain of sums
//! over channels alone, so no bit depends on what else is computed with a tile.

mod axis;
mod block;
mod convolution;
mod cut;
mod forward;
mod input_grad;
#[cfg(test)]
mod tests;
mod transform;
mod vector;
mod weight_grad;
mod weights;

pub(super) use forward::conv;
pub(super) use input_grad::input_grad;
pub(super) use weight_grad::weight_grad;

/// Elements from one point's plane to the next: an odd number of cache lines, so that the 36 planes do not meet in one set.
fn plane(len: usize) -> usize {
    const LINE: usize = 16;
    (len.div_ceil(LINE) | 1) * LINE
}
