//! Which engine computes a convolution.

use ddpm_tensor::{Cpu, Element};

use super::Sizes;

/// How products are computed: a matter of precision, instruction set and one image's shape, never of batch or threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    /// Products of the numbers as they are.
    Direct,
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
    pub(super) fn of<T: Element>(_cpu: &Cpu<T>, _s: &Sizes, _direction: Direction) -> Self {
        Self::Direct
    }
}
