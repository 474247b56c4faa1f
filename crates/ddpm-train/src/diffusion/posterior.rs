//! The forward process's posterior q(x_{t−1} | x_t, x_0), which a reverse step imitates.

use super::Schedule;
use crate::named::named_enum;

named_enum! {
    /// The variance of a reverse step, which is not learned (Ho et al. 2020, section 3.2).
    #[derive(Default)]
    #[non_exhaustive]
    Variance: "variance" {
        /// β_t: right for x_0 ~ N(0, 1). The paper's choice for CIFAR-10.
        #[default]
        FixedLarge = "fixed_large" | "fixedlarge",
        /// β̃_t, the posterior's: right for a known x_0.
        FixedSmall = "fixed_small" | "fixedsmall",
    }
}

/// q(x_{t−1} | x_t, x_0) = N(μ̃_t(x_t, x_0), β̃_t) for every t (Ho et al. 2020, eq. 6 and 7).
#[derive(Debug, Clone, PartialEq)]
pub struct Posterior {
    mean_x_0: Vec<f64>,
    mean_x_t: Vec<f64>,
    beta: Vec<f64>,
    beta_tilde: Vec<f64>,
}

impl Posterior {
    /// The posterior of a schedule.
    pub fn new(schedule: &Schedule) -> Self {
        let steps = 0..schedule.time_steps();
        let of = |f: &dyn Fn(usize) -> f64| steps.clone().map(f).collect::<Vec<f64>>();
        let (beta, alpha_bar) = (schedule.beta(), schedule.alpha_bar());
        let before = |t| schedule.alpha_bar_before(t);
        Self {
            mean_x_0: of(&|t| before(t).sqrt() * beta[t] / (1.0 - alpha_bar[t])),
            mean_x_t: of(&|t| schedule.alpha(t).sqrt() * (1.0 - before(t)) / (1.0 - alpha_bar[t])),
            beta: beta.to_vec(),
            beta_tilde: of(&|t| beta[t] * (1.0 - before(t)) / (1.0 - alpha_bar[t])),
        }
    }

    /// (a, b) of μ̃_t = a x_0 + b x_t: a = √ᾱ_{t−1} β_t/(1 − ᾱ_t), b = √α_t (1 − ᾱ_{t−1})/(1 − ᾱ_t) (Ho et al. 2020, eq. 7).
    ///
    /// # Panics
    /// If t ≥ T, as an array would.
    pub fn mean(&self, t: usize) -> (f64, f64) {
        (self.mean_x_0[t], self.mean_x_t[t])
    }

    /// β̃_t = β_t (1 − ᾱ_{t−1})/(1 − ᾱ_t), which is 0 at t = 0 (Ho et al. 2020, eq. 7).
    ///
    /// # Panics
    /// If t ≥ T, as an array would.
    pub fn beta_tilde(&self, t: usize) -> f64 {
        self.beta_tilde[t]
    }

    /// σ_t² of a sampling step. 0 at t = 0 whatever the kind: the last step adds no noise (Ho et al. 2020, algorithm 2).
    ///
    /// # Panics
    /// If t ≥ T, as an array would.
    pub fn sampling_variance(&self, kind: Variance, t: usize) -> f64 {
        match kind {
            _ if t == 0 => 0.0,
            Variance::FixedLarge => self.beta[t],
            Variance::FixedSmall => self.beta_tilde[t],
        }
    }

    /// ln σ_t² for likelihoods. At t = 0 both kinds use β̃_1, since β̃_0 is 0 and β_0 gives a worse decoder; a chain of
    /// one step has only β_0.
    ///
    /// Source: Ho et al.'s CIFAR-10 program, where the rule stands with the two kinds.
    ///
    /// # Panics
    /// If t ≥ T, as an array would.
    pub fn log_variance(&self, kind: Variance, t: usize) -> f64 {
        libm::log(match (kind, t) {
            (_, 0) => self.beta_tilde.get(1).copied().unwrap_or(self.beta[0]),
            (Variance::FixedLarge, _) => self.beta[t],
            (Variance::FixedSmall, _) => self.beta_tilde[t],
        })
    }
}
