//! How far a prediction is from its target.

use std::fmt;

use ddpm_kernels::loss::LossKind;

use super::Prediction;

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

/// Weight of a time step by min-SNR-γ (Hang et al. 2023, eq. 8 and appendix), SNR = ᾱ/(1−ᾱ), for what is predicted:
/// ε: min(SNR, γ)/SNR; x_0: min(SNR, γ); v: min(SNR, γ)/(SNR + 1). γ = 0 weighs every step alike, by 1.
///
/// The mean over pixels of the loss on ε is largest where the noise is faint and only the last details are decided;
/// the weight leaves those steps their share and no more.
pub fn min_snr_weight(prediction: Prediction, alpha_bar: f64, gamma: f64) -> f64 {
    if gamma == 0.0 {
        return 1.0;
    }
    let snr = alpha_bar / (1.0 - alpha_bar);
    match prediction {
        // not min(SNR, γ)/SNR: that is 0/0 where nothing is left of the image
        Prediction::Eps => (gamma / snr).min(1.0),
        Prediction::X0 => snr.min(gamma),
        Prediction::V => snr.min(gamma) / (snr + 1.0),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn min_snr_weights_are_those_of_the_same_loss_on_x_0() {
        for gamma in [0.5, 5.0, 20.0] {
            for alpha_bar in [1e-5, 0.1, 0.5, 0.9, 0.9999] {
                let snr = alpha_bar / (1.0 - alpha_bar);
                let weight = |prediction| min_snr_weight(prediction, alpha_bar, gamma);
                // a squared error of ε is SNR times that of x_0, one of v is (SNR + 1) times
                for in_x_0 in
                    [weight(Prediction::X0), weight(Prediction::Eps) * snr, weight(Prediction::V) * (snr + 1.0)]
                {
                    assert!(
                        (in_x_0 - snr.min(gamma)).abs() <= 1e-12 * gamma,
                        "{in_x_0} at ᾱ = {alpha_bar}, γ = {gamma}"
                    );
                }
            }
        }
        assert_eq!(min_snr_weight(Prediction::Eps, 0.0, 5.0), 1.0);
        assert_eq!(min_snr_weight(Prediction::X0, 0.5, 0.0), 1.0);
    }
}
