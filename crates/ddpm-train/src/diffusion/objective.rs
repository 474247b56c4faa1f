//! How far a prediction is from its target.

use std::fmt;

use ddpm_kernels::loss::LossKind;

/// The loss of one element as a function of d = output − target; a batch's loss is the mean over its elements, each
/// image's times its weight.
///
/// The fused operation that computes it with its gradient is [`Backend::loss`](ddpm_kernels::Backend::loss).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Objective {
    /// d²: L_simple of Ho et al. 2020, eq. 14.
    #[default]
    L2,
    /// |d|: sharper, less varied images (Saharia et al. 2022, "Palette").
    L1,
    /// d²/2 where |d| ≤ δ, δ(|d| − δ/2) beyond (Huber 1964): L2 near 0 and L1 far away.
    Huber {
        /// δ > 0, in units of the target.
        delta: f64,
    },
}

impl Objective {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::L1 => "l1",
            Self::Huber { .. } => "huber",
        }
    }

    /// As the fused loss takes it.
    pub fn kind(self) -> LossKind {
        match self {
            Self::L2 => LossKind::L2,
            Self::L1 => LossKind::L1,
            Self::Huber { delta } => LossKind::Huber { delta: delta as f32 },
        }
    }
}

impl fmt::Display for Objective {
    /// One line for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::L2 => f.write_str("mean squared error"),
            Self::L1 => f.write_str("mean absolute error"),
            Self::Huber { delta } => write!(f, "Huber loss, quadratic up to {delta}"),
        }
    }
}
