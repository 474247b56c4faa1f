//! Which engine computes a convolution.

use ddpm_tensor::cpu::isa::Set;
use ddpm_tensor::{Cpu, Element, Precision};

use super::{Sizes, amx};

/// How products are computed: a matter of precision, instruction set and one image's shape, never of batch or threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    /// Products of the numbers as they are.
    Direct,
    /// Tiles of bf16.
    Tiles(amx::Engine),
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
        // tiles take 32 steps of k and 16 columns at a time: below half of that the direct products are as fast
        let (depth, columns) = match direction {
            Direction::Forward => (s.c, s.o),
            Direction::InputGrad => (s.o, s.c),
            Direction::WeightGrad => (s.c.min(s.o), s.c.min(s.o)),
        };
        let suits = depth >= 16 && columns >= 8 && s.out_h * s.out_w >= 16;
        match (cpu.isa().set(), cpu.precision()) {
            #[cfg(target_arch = "x86_64")]
            (Set::Amx, Precision::F32) if size_of::<T>() == size_of::<f32>() && suits => {
                Self::Tiles(amx::Engine::SPLIT)
            }
            _ => Self::Direct,
        }
    }
}
