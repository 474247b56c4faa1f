//! What the network predicts, and how one prediction becomes another.
//!
//! x_t = √ᾱ x_0 + √(1−ᾱ) ε ties x_t, x_0, ε, v and the posterior's mean μ̃ together, so that each of the last four follows
//! from x_t and any other of them, linearly. All factors depend on ᾱ_t alone, but for those of μ̃, which depend on ᾱ_{t−1} too.

use super::forward::Noising;
use super::{DiffusionError, Schedule};
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
        /// x_{t−1}, by the mean μ̃_t(x_t, x_0) of its posterior (Ho et al. 2020, eq. 7 and 8; their program's `xprev`).
        Mean = "mean" | "xprev",
    }
}

/// How noisy x_t and x_{t−1} are: what a prediction's factors depend on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// ᾱ_t.
    pub alpha_bar: f64,
    /// ᾱ_{t−1}, 1 at t = 0.
    pub before: f64,
}

impl Level {
    /// The level of a time step.
    ///
    /// # Panics
    /// If t ≥ T, as an array would.
    pub fn of(schedule: &Schedule, t: usize) -> Self {
        Self { alpha_bar: schedule.alpha_bar()[t], before: schedule.alpha_bar_before(t) }
    }

    /// The level of x_t with this ᾱ, told to the network as a time that may lie between two steps: ᾱ_{t−1} is then ᾱ/(1 − β)
    /// with β in linear proportion between the steps.
    pub fn at(schedule: &Schedule, time: f64, alpha_bar: f64) -> Self {
        let last = schedule.time_steps() - 1;
        let low = (time.max(0.0) as usize).min(last);
        if time == low as f64 && schedule.alpha_bar()[low] == alpha_bar {
            return Self::of(schedule, low);
        }
        let (beta, next) = (schedule.beta()[low], schedule.beta()[(low + 1).min(last)]);
        let beta = beta + (next - beta) * (time - low as f64).clamp(0.0, 1.0);
        Self { alpha_bar, before: (alpha_bar / (1.0 - beta)).min(1.0) }
    }

    /// α_t = ᾱ_t/ᾱ_{t−1}.
    fn alpha(self) -> f64 {
        self.alpha_bar / self.before
    }

    /// Signal-to-noise ratio ᾱ/(1 − ᾱ).
    pub fn snr(self) -> f64 {
        self.alpha_bar / (1.0 - self.alpha_bar)
    }

    /// (a, b) of μ̃ = a x_0 + b x_t: a = √ᾱ_{t−1} β/(1−ᾱ), b = √α (1−ᾱ_{t−1})/(1−ᾱ) (Ho et al. 2020, eq. 7).
    pub fn posterior(self) -> (f64, f64) {
        let (alpha, noise) = (self.alpha(), 1.0 - self.alpha_bar);
        (self.before.sqrt() * (1.0 - alpha) / noise, alpha.sqrt() * (1.0 - self.before) / noise)
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

    /// `factor` times this.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self { x_t: factor * self.x_t, output: factor * self.output }
    }

    /// The value, for two numbers.
    pub fn of(self, x_t: f64, output: f64) -> f64 {
        self.x_t * x_t + self.output * output
    }
}

impl Prediction {
    /// The training target as a noising of x_0 with the ε that is in x_t: signal · x_0 + noise · ε.
    ///
    /// ε: (0, 1). x_0: (1, 0). v: (−√(1−ᾱ), √ᾱ). μ̃: (a + b √ᾱ, b √(1−ᾱ)). So the noising operation makes v and μ̃ too, from the
    /// same address as x_t.
    pub fn target(self, level: Level) -> Noising {
        let alpha_bar = level.alpha_bar;
        let (signal, noise) = match self {
            Self::Eps => (0.0, 1.0),
            Self::X0 => (1.0, 0.0),
            Self::V => (-(1.0 - alpha_bar).sqrt(), alpha_bar.sqrt()),
            Self::Mean => {
                let (x_0, x_t) = level.posterior();
                (x_0 + x_t * alpha_bar.sqrt(), x_t * (1.0 - alpha_bar).sqrt())
            }
        };
        Noising { signal, noise }
    }

    /// x̂_0 from x_t and the output.
    ///
    /// ε: x_t/√ᾱ − √(1/ᾱ − 1) ε̂ (Ho et al. 2020, eq. 15). x_0: the output. v: √ᾱ x_t − √(1−ᾱ) v̂. μ̃: (μ̂ − b x_t)/a.
    /// ε gives infinities at ᾱ = 0; [`Prediction::check`] tells.
    pub fn x_0(self, level: Level) -> Combination {
        let alpha_bar = level.alpha_bar;
        match self {
            Self::Eps => Combination::new(1.0 / alpha_bar.sqrt(), -((1.0 - alpha_bar) / alpha_bar).sqrt()),
            Self::X0 => Combination::new(0.0, 1.0),
            Self::V => Combination::new(alpha_bar.sqrt(), -(1.0 - alpha_bar).sqrt()),
            Self::Mean => {
                let (x_0, x_t) = level.posterior();
                Combination::new(-x_t / x_0, 1.0 / x_0)
            }
        }
    }

    /// ε̂ from x_t and the output.
    ///
    /// ε: the output. x_0: (x_t − √ᾱ x̂_0)/√(1−ᾱ). v: √(1−ᾱ) x_t + √ᾱ v̂. μ̃: (x_t − √α μ̂) √(1−ᾱ)/β (Ho et al. 2020, eq. 11).
    pub fn eps(self, level: Level) -> Combination {
        let (alpha_bar, alpha) = (level.alpha_bar, level.alpha());
        let (signal, noise) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
        match self {
            Self::Eps => Combination::new(0.0, 1.0),
            Self::X0 => Combination::new(1.0 / noise, -signal / noise),
            Self::V => Combination::new(noise, signal),
            Self::Mean => Combination::new(1.0, -alpha.sqrt()).times(noise / (1.0 - alpha)),
        }
    }

    /// v̂ from x_t and the output.
    ///
    /// ε: (ε̂ − √(1−ᾱ) x_t)/√ᾱ. x_0: (√ᾱ x_t − x̂_0)/√(1−ᾱ). v: the output. μ̃: by its x_0.
    pub fn v(self, level: Level) -> Combination {
        let alpha_bar = level.alpha_bar;
        let (signal, noise) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
        match self {
            Self::Eps => Combination::new(-noise / signal, 1.0 / signal),
            Self::X0 => Combination::new(signal / noise, -1.0 / noise),
            Self::V => Combination::new(0.0, 1.0),
            Self::Mean => {
                let x_0 = self.x_0(level);
                Combination::new((signal - x_0.x_t) / noise, -x_0.output / noise)
            }
        }
    }

    /// μ̂ from x_t and the output: a x̂_0 + b x_t (Ho et al. 2020, eq. 7).
    pub fn mean(self, level: Level) -> Combination {
        if self == Self::Mean {
            return Combination::new(0.0, 1.0);
        }
        let ((a, b), x_0) = (level.posterior(), self.x_0(level));
        Combination::new(a * x_0.x_t + b, a * x_0.output)
    }

    /// What `to` stands for, from x_t and the output.
    pub fn convert(self, to: Self, level: Level) -> Combination {
        match to {
            Self::Eps => self.eps(level),
            Self::X0 => self.x_0(level),
            Self::V => self.v(level),
            Self::Mean => self.mean(level),
        }
    }

    /// Whether x̂_0 follows from this prediction at time step `time_step`, in `f32` too.
    ///
    /// # Errors
    /// ε where ᾱ is 0, or so small that 1/√ᾱ overflows `f32`.
    pub fn check(self, time_step: f64, level: Level) -> Result<(), DiffusionError> {
        let (x_0, alpha_bar) = (self.x_0(level), level.alpha_bar);
        if (x_0.x_t as f32).is_finite() && (x_0.output as f32).is_finite() {
            Ok(())
        } else {
            Err(DiffusionError::Singular { prediction: self.name(), time_step, alpha_bar })
        }
    }
}
