//! How far a prediction is from its target.

use std::fmt;

/// The loss of one element as a function of d = output − target; a batch's loss is the weighted mean over images of the mean over elements.
///
/// The fused kernel that computes it with its gradient lives in `ddpm-kernels`.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
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
    /// The loss of one difference d.
    pub fn loss(self, d: f64) -> f64 {
        match self {
            Self::L2 => d * d,
            Self::L1 => d.abs(),
            Self::Huber { delta } if d.abs() <= delta => 0.5 * d * d,
            Self::Huber { delta } => delta * (d.abs() - 0.5 * delta),
        }
    }

    /// Its derivative by d; 0 at d = 0 for L1.
    pub fn derivative(self, d: f64) -> f64 {
        match self {
            Self::L2 => 2.0 * d,
            Self::L1 if d == 0.0 => 0.0,
            Self::L1 => d.signum(),
            Self::Huber { delta } => d.clamp(-delta, delta),
        }
    }

    /// One line for people.
    pub fn description(self) -> String {
        match self {
            Self::L2 => "mean squared error".to_owned(),
            Self::L1 => "mean absolute error".to_owned(),
            Self::Huber { delta } => format!("Huber loss, quadratic up to {delta}"),
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::L2 => "l2",
            Self::L1 => "l1",
            Self::Huber { .. } => "huber",
        })
    }
}
