//! The forward process's posterior q(x_{t−1} | x_t, x_0), which a reverse step imitates.

use super::Schedule;
use crate::named::named_enum;

named_enum! {
    /// The variance of a reverse step (Ho et al. 2020, section 3.2; Nichol and Dhariwal 2021, section 3.1).
    #[derive(Default)]
    #[non_exhaustive]
    Variance: "variance" {
        /// β_t: right for x_0 ~ N(0, 1). The paper's choice for CIFAR-10.
        #[default]
        FixedLarge = "fixed_large" | "fixedlarge",
        /// β̃_t, the posterior's: right for a known x_0.
        FixedSmall = "fixed_small" | "fixedsmall",
        /// (1 − v) β̃_t + v β_t, v from 0 to 1 ([`Posterior::with_blend`]; latent diffusion's `v_posterior`).
        Blend = "blend",
        /// ln σ² is the second half of the network's channels.
        Learned = "learned",
        /// ln σ² = f ln β_t + (1 − f) ln β̃_t with f = (o + 1)/2 and o the second half of the network's channels
        /// (Nichol and Dhariwal 2021, eq. 15).
        LearnedRange = "learned_range",
    }
}

impl Variance {
    /// Whether the network says it, in as many channels more.
    pub fn is_learned(self) -> bool {
        matches!(self, Self::Learned | Self::LearnedRange)
    }
}

/// ln σ² = `constant` + `output` · o, with o what the network says of the variance; a fixed variance has `output` = 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogVariance {
    /// Where the network says 0.
    pub constant: f64,
    /// Factor of what the network says.
    pub output: f64,
}

impl LogVariance {
    /// ln σ² for a network that says `output`.
    pub fn of(self, output: f64) -> f64 {
        self.constant + self.output * output
    }
}

/// q(x_{t−1} | x_t, x_0) = N(μ̃_t(x_t, x_0), β̃_t) for every t (Ho et al. 2020, eq. 6 and 7).
#[derive(Debug, Clone, PartialEq)]
pub struct Posterior {
    mean_x_0: Vec<f64>,
    mean_x_t: Vec<f64>,
    beta: Vec<f64>,
    beta_tilde: Vec<f64>,
    blend: f64,
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
            blend: 0.0,
        }
    }

    /// The same where [`Variance::Blend`] has this v, 0 to 1; 0 otherwise.
    #[must_use]
    pub fn with_blend(self, v: f64) -> Self {
        Self { blend: v, ..self }
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

    /// σ_t² of a sampling step; of a learned one where the network says 0. 0 at t = 0 whatever the kind: the last step adds no
    /// noise (Ho et al. 2020, algorithm 2).
    ///
    /// # Panics
    /// If t ≥ T, as an array would.
    pub fn sampling_variance(&self, kind: Variance, t: usize) -> f64 {
        match kind {
            _ if t == 0 => 0.0,
            Variance::FixedLarge => self.beta[t],
            Variance::FixedSmall => self.beta_tilde[t],
            Variance::Blend => self.blended(self.beta_tilde[t], t),
            Variance::Learned | Variance::LearnedRange => libm::exp(self.log_variance(kind, t)),
        }
    }

    /// ln σ_t² for likelihoods; of a learned one where the network says 0. At t = 0 β̃_1 is in the place of β̃_0, which is 0, and of
    /// `fixed_large`'s β_0, which gives a worse decoder; a chain of one step has only β_0.
    ///
    /// Source: Ho et al.'s CIFAR-10 program, where the rule stands with the two kinds.
    ///
    /// # Panics
    /// If t ≥ T, as an array would.
    pub fn log_variance(&self, kind: Variance, t: usize) -> f64 {
        self.learned_log_variance(kind, t).constant
    }

    /// ln σ_t² for likelihoods, with what the network says of it.
    ///
    /// # Panics
    /// If t ≥ T, as an array would.
    pub fn learned_log_variance(&self, kind: Variance, t: usize) -> LogVariance {
        let small = if t == 0 { self.beta_tilde.get(1).copied().unwrap_or(self.beta[0]) } else { self.beta_tilde[t] };
        let fixed = |variance: f64| LogVariance { constant: libm::log(variance), output: 0.0 };
        match kind {
            Variance::FixedLarge if t > 0 => fixed(self.beta[t]),
            Variance::FixedLarge | Variance::FixedSmall => fixed(small),
            Variance::Blend => fixed(self.blended(small, t)),
            Variance::Learned => LogVariance { constant: 0.0, output: 1.0 },
            Variance::LearnedRange => {
                let (low, high) = (libm::log(small), libm::log(self.beta[t]));
                LogVariance { constant: 0.5 * (low + high), output: 0.5 * (high - low) }
            }
        }
    }

    fn blended(&self, small: f64, t: usize) -> f64 {
        (1.0 - self.blend) * small + self.blend * self.beta[t]
    }
}
