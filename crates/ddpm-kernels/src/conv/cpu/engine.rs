//! Which engine computes a convolution.

use ddpm_tensor::cpu::isa::Set;
use ddpm_tensor::{Cpu, Element, Precision};

use super::{Sizes, bf16};
use crate::conv::Geometry;

/// How products are computed: a matter of precision, instruction set and one image's shape, never of batch or threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::conv) enum Engine {
    /// Products of the numbers as they are.
    Direct,
    /// Winograd's F(4x4, 3x3): a quarter of the products.
    Winograd,
    /// Tiles of bf16: on AMX, or by dot products of pairs.
    Tiles(bf16::Engine),
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
        if cpu.precision() == Precision::Strict {
            return Self::Direct;
        }
        #[cfg(test)]
        if let Some(forced) = forced::get(s, direction) {
            return forced;
        }
        match cpu.isa().set() {
            #[cfg(target_arch = "x86_64")]
            Set::Amx if size_of::<T>() == size_of::<f32>() => {
                let rounded = cpu.precision() == Precision::Bf16;
                let engine = if rounded { bf16::Engine::ROUNDED } else { bf16::Engine::SPLIT };
                if tiles(s, direction) { Self::Tiles(engine) } else { Self::Direct }
            }
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 if size_of::<T>() == size_of::<f32>() && rounds(cpu) && dots(s, direction) => {
                Self::Tiles(bf16::Engine::DOTS)
            }
            _ => {
                if s.g == Geometry::THREE && winograd(s, direction) {
                    Self::Winograd
                } else {
                    Self::Direct
                }
            }
        }
    }
}

/// Whether numbers are rounded to bf16 for products.
#[cfg(target_arch = "x86_64")]
fn rounds<T: Element>(cpu: &Cpu<T>) -> bool {
    cpu.precision() == Precision::Bf16 && cpu.isa().multiplies_bf16()
}

/// Whether tiles gain: they take 32 steps of k and 16 columns at a time; below half of that direct products are as fast.
fn tiles(s: &Sizes, direction: Direction) -> bool {
    let (depth, columns) = match direction {
        Direction::Forward => (s.c, s.o),
        Direction::InputGrad => (s.o, s.c),
        Direction::WeightGrad => (s.c.min(s.o), s.c.min(s.o)),
    };
    depth >= 16 && columns >= 8 && s.out_h * s.out_w >= 16
}

/// Whether dot products of pairs gain: they do twice the products of f32 in the same time, Winograd needs a quarter of them and is
/// faster wherever it gains anything.
#[cfg(target_arch = "x86_64")]
fn dots(s: &Sizes, direction: Direction) -> bool {
    tiles(s, direction) && (s.g != Geometry::THREE || !winograd(s, direction))
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

    use super::{Direction, Engine, tiles};
    use crate::conv::Geometry;
    use crate::conv::cpu::Sizes;

    thread_local!(static FORCED: Cell<Option<Engine>> = const { Cell::new(None) });

    pub(super) fn get(s: &Sizes, direction: Direction) -> Option<Engine> {
        FORCED.get().map(|engine| match engine {
            Engine::Winograd if s.g != Geometry::THREE => Engine::Direct,
            // packing is written for whole rows of pixels
            Engine::Tiles(_) if !tiles(s, direction) => Engine::Direct,
            engine => engine,
        })
    }

    /// Runs something with an engine, on this thread and what it waits for.
    pub(in crate::conv) fn with(engine: Engine, run: impl FnOnce()) {
        FORCED.set(Some(engine));
        run();
        FORCED.set(None);
    }
}
