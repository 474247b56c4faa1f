//! What the network predicts, and how one prediction becomes another.
//!
//! x_t = √ᾱ x_0 + √(1−ᾱ) ε ties the four quantities x_t, x_0, ε and v together, so that x_0, ε and v each follow from
//! x_t and any other of the three, linearly. All factors depend on ᾱ alone.

use super::DiffusionError;
use super::forward::Noising;
use crate::named::named_enum;

named_enum! {
    /// What the network's output means.
    #[derive(Default)]
    #[non_exhaustive]
    Prediction: "prediction" {
        /// The noise ε (Ho et al. 2020, eq. 11 and 14).
        #[default]
        Eps = "eps" | "epsilon",
        /// The image x_0.
        X0 = "x0" | "x_0" | "sample",
        /// v = √ᾱ ε − √(1−ᾱ) x_0 (Salimans and Ho 2022, appendix D).
        V = "v" | "v_prediction",
    }
}

/// A value as `x_t` · x_t + `output` · (the network's output).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Combination {
    /// Factor of x_t.
    pub x_t: f64,
    /// Factor of the network's output.
    pub output: f64,
}

impl Combination {
    const fn new(x_t: f64, output: f64) -> Self {
        Self { x_t, output }
    }

    /// The value, for two numbers.
    pub fn of(self, x_t: f64, output: f64) -> f64 {
        self.x_t * x_t + self.output * output
    }
}

impl Prediction {
    /// The training target as a noising of x_0 with the ε that is in x_t: signal · x_0 + noise · ε.
    ///
    /// ε: (0, 1). x_0: (1, 0). v: (−√(1−ᾱ), √ᾱ). So the noising operation makes v too, from the same address as x_t.
    pub fn target(self, alpha_bar: f64) -> Noising {
        let (signal, noise) = match self {
            Self::Eps => (0.0, 1.0),
            Self::X0 => (1.0, 0.0),
            Self::V => (-(1.0 - alpha_bar).sqrt(), alpha_bar.sqrt()),
        };
        Noising { signal, noise }
    }

    /// x̂_0 from x_t and the output.
    ///
    /// ε: x_t/√ᾱ − √(1/ᾱ − 1) ε̂ (Ho et al. 2020, eq. 15). x_0: the output. v: √ᾱ x_t − √(1−ᾱ) v̂.
    /// ε gives infinities at ᾱ = 0; [`Prediction::check`] tells.
    pub fn x_0(self, alpha_bar: f64) -> Combination {
        match self {
            Self::Eps => Combination::new(1.0 / alpha_bar.sqrt(), -((1.0 - alpha_bar) / alpha_bar).sqrt()),
            Self::X0 => Combination::new(0.0, 1.0),
            Self::V => Combination::new(alpha_bar.sqrt(), -(1.0 - alpha_bar).sqrt()),
        }
    }

    /// ε̂ from x_t and the output.
    ///
    /// ε: the output. x_0: (x_t − √ᾱ x̂_0)/√(1−ᾱ). v: √(1−ᾱ) x_t + √ᾱ v̂.
    pub fn eps(self, alpha_bar: f64) -> Combination {
        let (signal, noise) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
        match self {
            Self::Eps => Combination::new(0.0, 1.0),
            Self::X0 => Combination::new(1.0 / noise, -signal / noise),
            Self::V => Combination::new(noise, signal),
        }
    }

    /// v̂ from x_t and the output.
    ///
    /// ε: (ε̂ − √(1−ᾱ) x_t)/√ᾱ. x_0: (√ᾱ x_t − x̂_0)/√(1−ᾱ). v: the output.
    pub fn v(self, alpha_bar: f64) -> Combination {
        let (signal, noise) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
        match self {
            Self::Eps => Combination::new(-noise / signal, 1.0 / signal),
            Self::X0 => Combination::new(signal / noise, -1.0 / noise),
            Self::V => Combination::new(0.0, 1.0),
        }
    }

    /// What `to` stands for, from x_t and the output.
    pub fn convert(self, to: Self, alpha_bar: f64) -> Combination {
        match to {
            Self::Eps => self.eps(alpha_bar),
            Self::X0 => self.x_0(alpha_bar),
            Self::V => self.v(alpha_bar),
        }
    }

    /// Whether x̂_0 follows from this prediction at time step `time_step`, in `f32` too.
    ///
    /// # Errors
    /// ε where ᾱ is 0, or so small that 1/√ᾱ overflows `f32`.
    pub fn check(self, time_step: f64, alpha_bar: f64) -> Result<(), DiffusionError> {
        let x_0 = self.x_0(alpha_bar);
        if (x_0.x_t as f32).is_finite() && (x_0.output as f32).is_finite() {
            Ok(())
        } else {
            Err(DiffusionError::Singular { prediction: self.name(), time_step, alpha_bar })
        }
    }
}
