//! Which engine computes a convolution.

use ddpm_tensor::{Cpu, Element, Precision};

use super::Sizes;
use crate::conv::Geometry;

/// How products are computed: a matter of precision, instruction set and one image's shape, never of batch or threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::conv) enum Engine {
    /// Products of the numbers as they are.
    Direct,
    /// Winograd's F(4x4, 3x3): a quarter of the products.
    Winograd,
}

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// The result.
    Forward,
    /// The gradient of the operand.
    InputGrad,
    /// The gradient of the weights.
    WeightGrad,
}

impl Engine {
    pub(super) fn of<T: Element>(cpu: &Cpu<T>, s: &Sizes, direction: Direction) -> Self {
        if cpu.precision() == Precision::Strict || s.g != Geometry::THREE {
            return Self::Direct;
        }
        #[cfg(test)]
        if let Some(forced) = forced::get() {
            return forced;
        }
        if winograd(s, direction) { Self::Winograd } else { Self::Direct }
    }
}

/// Whether a 3x3 convolution of stride 1 gains by Winograd's transforms. A tile costs `c·o` products and the transforms of
/// `c + o` channels; that of the weights, shared by a batch, is worth some part of a tile an image. Constants from measurements
/// over channels from 8 to 256 and images from 1² to 28²; the two engines are alike where the sides are.
fn winograd(s: &Sizes, direction: Direction) -> bool {
    const TRANSFORM: usize = 20;
    let half_tiles = 2 * s.h.div_ceil(4) * s.w.div_ceil(4) + if direction == Direction::WeightGrad { 2 } else { 1 };
    s.h * s.w * s.c * s.o >= 3 * half_tiles * (s.c * s.o + TRANSFORM * (s.c + s.o))
}

/// The engine that tests want where several can compute a convolution, whatever its shape.
#[cfg(test)]
pub(in crate::conv) mod forced {
    use std::cell::Cell;

    use super::Engine;

    thread_local!(static FORCED: Cell<Option<Engine>> = const { Cell::new(None) });

    pub(super) fn get() -> Option<Engine> {
        FORCED.get()
    }

    /// Runs something with an engine, on this thread and what it waits for.
    pub(in crate::conv) fn with(engine: Engine, run: impl FnOnce()) {
        FORCED.set(Some(engine));
        run();
        FORCED.set(None);
    }
}
