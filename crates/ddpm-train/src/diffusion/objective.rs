//! How far a prediction is from its target.

use std::fmt;

use ddpm_kernels::loss::LossKind;

use super::{Level, Prediction};
use crate::named::named_enum;

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
    /// The variational bound's term L_t itself, in bits per dimension (Ho et al. 2020, eq. 5).
    Bound,
}

impl Objective {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::L1 => "l1",
            Self::Huber { .. } => "huber",
            Self::Bound => "vlb",
        }
    }

    /// As the fused loss takes it; the bound is not among its kinds, and beside it goes the squared error.
    pub fn kind(self) -> LossKind {
        match self {
            Self::L2 | Self::Bound => LossKind::L2,
            Self::L1 => LossKind::L1,
            Self::Huber { delta } => LossKind::Huber { delta: delta as f32 },
        }
    }
}

named_enum! {
    /// What a time step counts for in the loss.
    #[derive(Default)]
    #[non_exhaustive]
    Weighting: "weighting" {
        /// All alike.
        #[default]
        Uniform = "uniform",
        /// As in a loss on ε, whatever is predicted: SNR for x_0, ᾱ for v (Salimans and Ho 2022, section 4).
        Snr = "snr",
        /// 1/(k + SNR)^γ in a loss on ε (Choi et al. 2022, "P2", eq. 8).
        P2 = "p2",
        /// min(SNR, γ)/SNR in a loss on ε (Hang et al. 2023, eq. 8).
        MinSnr = "min_snr",
    }
}

/// A [`Weighting`] with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Weights {
    /// Which.
    pub weighting: Weighting,
    /// γ of P2 or min-SNR.
    pub gamma: f64,
    /// k of P2.
    pub k: f64,
}

impl Weights {
    /// The weight of an image's loss on what is predicted, at a level: that of the loss on ε times (dε/d output)². So every weighting
    /// but [`Weighting::Uniform`] weighs errors of x_0 alike, whatever is predicted.
    ///
    /// The mean over pixels of the loss on ε is largest where the noise is faint and only the last details are decided;
    /// P2 and min-SNR leave those steps less.
    pub fn at(self, prediction: Prediction, level: Level) -> f64 {
        let of_eps = match self.weighting {
            Weighting::Uniform => return 1.0,
            Weighting::Snr => 1.0,
            Weighting::P2 => libm::pow(self.k + level.snr(), -self.gamma),
            // not min(SNR, γ)/SNR: that is 0/0 where nothing is left of the image
            Weighting::MinSnr => (self.gamma / level.snr()).min(1.0),
        };
        of_eps * prediction.eps(level).output.powi(2)
    }
}

/// The weight that a squared error of the prediction has in the bound, in nats: (dμ̂/d output)²/(2σ²), for ε
/// β²/(2σ²α(1−ᾱ)) (Ho et al. 2020, eq. 12; latent diffusion's `lvlb_weights`, whose form for x_0 lacks a pair of brackets).
pub fn bound_weight(prediction: Prediction, level: Level, variance: f64) -> f64 {
    prediction.mean(level).output.powi(2) / (2.0 * variance)
}

impl fmt::Display for Objective {
    /// One line for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::L2 => f.write_str("mean squared error"),
            Self::L1 => f.write_str("mean absolute error"),
            Self::Huber { delta } => write!(f, "Huber loss, quadratic up to {delta}"),
            Self::Bound => f.write_str("variational bound"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::{Posterior, ScheduleSettings, Variance};

    #[test]
    fn weights_are_those_of_the_same_loss_on_x_0() {
        let of = |weighting, gamma, k| Weights { weighting, gamma, k };
        for alpha_bar in [1e-5, 0.1, 0.5, 0.9, 0.9999] {
            let level = Level { alpha_bar, before: alpha_bar.sqrt() };
            let snr = alpha_bar / (1.0 - alpha_bar);
            for (weights, of_x_0) in [
                (of(Weighting::MinSnr, 5.0, 0.0), snr.min(5.0)),
                (of(Weighting::MinSnr, 0.5, 0.0), snr.min(0.5)),
                (of(Weighting::Snr, 0.0, 0.0), snr),
                (of(Weighting::P2, 0.5, 1.0), snr / (1.0 + snr).sqrt()),
                (of(Weighting::P2, 1.0, 2.0), snr / (2.0 + snr)),
            ] {
                for &prediction in Prediction::ALL {
                    // an error of the prediction is so many times one of x_0
                    let got = weights.at(prediction, level) / prediction.x_0(level).output.powi(2);
                    let what = format!("{weights:?} of {prediction} at ᾱ = {alpha_bar}");
                    assert!((got - of_x_0).abs() <= 1e-9 * of_x_0, "{what}: {got}, not {of_x_0}");
                }
            }
        }
        let nothing = Level { alpha_bar: 0.0, before: 0.1 };
        assert_eq!(of(Weighting::MinSnr, 5.0, 0.0).at(Prediction::Eps, nothing), 1.0);
        assert_eq!(Weights::default().at(Prediction::X0, nothing), 1.0);
    }

    #[test]
    fn the_bounds_weight_is_the_papers_and_one_for_all_predictions() {
        let Ok(schedule) = ScheduleSettings::default().build() else { panic!("the default is a schedule") };
        let posterior = Posterior::new(&schedule).with_blend(0.25);
        for t in [1, 10, 500, 999] {
            let (level, beta) = (Level::of(&schedule, t), schedule.beta()[t]);
            let variance = posterior.sampling_variance(Variance::Blend, t);
            assert!((variance - (0.75 * posterior.beta_tilde(t) + 0.25 * beta)).abs() < 1e-15);
            let want = beta * beta / (2.0 * variance * (1.0 - beta) * (1.0 - level.alpha_bar));
            for &prediction in Prediction::ALL {
                let got = bound_weight(prediction, level, variance) / prediction.eps(level).output.powi(2);
                assert!((got - want).abs() <= 1e-9 * want, "{prediction} at {t}: {got}, not {want}");
            }
        }
    }
}
