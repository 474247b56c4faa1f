//! The terms of the variational bound on −ln p(x_0), of one element each, in nats (Ho et al. 2020, eq. 5):
//! `L_T = KL(q(x_T|x_0) ‖ N(0, 1))`, `L_{t−1} = KL(q(x_{t−1}|x_t, x_0) ‖ p(x_{t−1}|x_t))`, `L_0 = −ln p(x_0|x_1)`.
//!
//! A likelihood in bits per dimension is the mean of [`bits`] over the elements, summed over the terms.

use std::f64::consts::{FRAC_1_SQRT_2, LN_2, PI};

use crate::named::named_enum;

/// N(`mean`, e^`log_variance`).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Gaussian {
    /// Its mean.
    pub mean: f64,
    /// The logarithm of its variance.
    pub log_variance: f64,
}

/// The derivatives of a term by mean and log-variance of the model's Gaussian.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Slope {
    /// By the mean.
    pub mean: f64,
    /// By the log-variance.
    pub log_variance: f64,
}

/// Nats in bits.
pub fn bits(nats: f64) -> f64 {
    nats / LN_2
}

/// KL(p ‖ q) = ½ (ln σ_q² − ln σ_p² + σ_p²/σ_q² + (μ_p − μ_q)²/σ_q² − 1), in nats.
pub fn gaussian_kl(p: Gaussian, q: Gaussian) -> f64 {
    let gap = q.log_variance - p.log_variance;
    0.5 * (gap + libm::exp(-gap) - 1.0 + (p.mean - q.mean).powi(2) * libm::exp(-q.log_variance))
}

/// The slope of [`gaussian_kl`] by q.
pub fn gaussian_kl_slope(p: Gaussian, q: Gaussian) -> Slope {
    let (distance, precision) = (q.mean - p.mean, libm::exp(-q.log_variance));
    let ratio = libm::exp(p.log_variance - q.log_variance);
    Slope { mean: distance * precision, log_variance: 0.5 * (1.0 - ratio - distance * distance * precision) }
}

named_enum! {
    /// The standard normal's distribution function Φ, as the decoder takes it.
    #[derive(Default)]
    #[non_exhaustive]
    Cdf: "distribution function" {
        /// ½ (1 + tanh(√(2/π) (x + 0.044715 x³))), which is what the published likelihoods were made with (Ho et al.'s
        /// program, and Nichol and Dhariwal's).
        #[default]
        Tanh = "tanh",
        /// Φ itself.
        Exact = "exact",
    }
}

/// Of x³ in the tanh form.
const CUBIC: f64 = 0.044_715;

impl Cdf {
    /// Φ(x), with small relative error in the lower tail too.
    pub fn of(self, x: f64) -> f64 {
        match self {
            // ½ (1 + tanh u) without the difference of two near numbers
            Self::Tanh => 1.0 / (1.0 + libm::exp(-2.0 * (2.0 / PI).sqrt() * (x + CUBIC * x * x * x))),
            Self::Exact => 0.5 * libm::erfc(-x * FRAC_1_SQRT_2),
        }
    }

    /// Φ'(x).
    pub fn density(self, x: f64) -> f64 {
        match self {
            Self::Tanh => 2.0 * (2.0 / PI).sqrt() * (1.0 + 3.0 * CUBIC * x * x) * self.of(x) * self.of(-x),
            Self::Exact => libm::exp(-0.5 * x * x) / (2.0 * PI).sqrt(),
        }
    }
}

/// Half the distance of two of 256 levels in [−1, 1].
const HALF_LEVEL: f64 = 1.0 / 255.0;
/// Beyond this a level is the first or the last, whose bin is open.
const EDGE: f64 = 0.999;
/// The least mass of a bin.
const LEAST: f64 = 1e-12;

/// A bin's mass under the model, and the ends that bound it, in standard deviations from the mean (infinite where it is open).
struct Bin {
    low: f64,
    high: f64,
    mass: f64,
}

impl Bin {
    fn of(cdf: Cdf, x_0: f64, model: Gaussian) -> Self {
        let inverse = libm::exp(-0.5 * model.log_variance);
        let end = |shift: f64| (x_0 - model.mean + shift) * inverse;
        let low = if x_0 < -EDGE { f64::NEG_INFINITY } else { end(-HALF_LEVEL) };
        let high = if x_0 > EDGE { f64::INFINITY } else { end(HALF_LEVEL) };
        let below = |x: f64| match x {
            f64::INFINITY => 1.0,
            f64::NEG_INFINITY => 0.0,
            x => cdf.of(x),
        };
        // in the upper tail by symmetry, where 1 − Φ has lost its digits
        let mass = if low > 0.0 { below(-low) - below(-high) } else { below(high) - below(low) };
        Self { low, high, mass }
    }
}

/// −ln of the mass that the model's Gaussian has in the bin of a level x_0 ∈ {−1, −1 + 2/255, …, 1}: ±1/255 around it, open at
/// both ends of the range; at least 1e-12 (Ho et al. 2020, eq. 13). In nats.
pub fn discretised_decoder(cdf: Cdf, x_0: f64, model: Gaussian) -> f64 {
    let mass = Bin::of(cdf, x_0, model).mass;
    // not `max`: what is no number stays so
    -libm::log(if mass < LEAST { LEAST } else { mass })
}

/// The slope of [`discretised_decoder`] by the model: 0 where the mass is cut.
pub fn discretised_decoder_slope(cdf: Cdf, x_0: f64, model: Gaussian) -> Slope {
    let Bin { low, high, mass } = Bin::of(cdf, x_0, model);
    if mass < LEAST {
        return Slope::default();
    }
    let density = |x: f64| if x.is_infinite() { 0.0 } else { cdf.density(x) };
    let moment = |x: f64| if x.is_infinite() { 0.0 } else { x * cdf.density(x) };
    Slope {
        mean: libm::exp(-0.5 * model.log_variance) * (density(high) - density(low)) / mass,
        log_variance: 0.5 * (moment(high) - moment(low)) / mass,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODELS: [(f64, f64); 5] = [(0.0, 0.0), (0.3, -2.0), (-0.98, -8.0), (0.97, -9.0), (1.4, -3.0)];

    fn models() -> impl Iterator<Item = Gaussian> {
        MODELS.into_iter().map(|(mean, log_variance)| Gaussian { mean, log_variance })
    }

    /// A slope against central differences.
    fn check(what: &str, model: Gaussian, slope: Slope, of: impl Fn(Gaussian) -> f64) {
        let h = 1e-5;
        let by = |mean: f64, log_variance: f64| {
            let at =
                |s: f64| Gaussian { mean: model.mean + s * mean, log_variance: model.log_variance + s * log_variance };
            (of(at(h)) - of(at(-h))) / (2.0 * h)
        };
        for (got, want) in [(slope.mean, by(1.0, 0.0)), (slope.log_variance, by(0.0, 1.0))] {
            assert!(
                (got - want).abs() <= 1e-5 * want.abs() + 1e-6,
                "{what} of {model:?}: {got}, differences say {want}"
            );
        }
    }

    #[test]
    fn a_divergence_is_the_integral_that_defines_it_and_slopes_are_derivatives() {
        for p in models() {
            assert_eq!(gaussian_kl(p, p), 0.0);
            for q in models() {
                let density = |g: Gaussian, x: f64| {
                    -0.5 * ((x - g.mean).powi(2) * (-g.log_variance).exp() + g.log_variance + (2.0 * PI).ln())
                };
                let deviation = (0.5 * p.log_variance).exp();
                // the trapezoidal rule is exact to rounding for what vanishes at both ends
                let integral: f64 = (-2000..=2000)
                    .map(|i| {
                        let x = p.mean + deviation * f64::from(i) * 0.006;
                        density(p, x).exp() * (density(p, x) - density(q, x)) * deviation * 0.006
                    })
                    .sum();
                let got = gaussian_kl(p, q);
                assert!((got - integral).abs() <= 1e-9 * (1.0 + integral.abs()), "{p:?} {q:?}: {got}, {integral}");
                check("KL", q, gaussian_kl_slope(p, q), |q| gaussian_kl(p, q));
            }
        }
    }

    #[test]
    fn the_256_levels_share_the_whole_mass() {
        for &cdf in Cdf::ALL {
            for model in models().filter(|model| model.log_variance > -9.0) {
                let mass = |level: i32| (-discretised_decoder(cdf, f64::from(level) / 127.5 - 1.0, model)).exp();
                let sum: f64 = (0..256).map(mass).sum();
                // up to 256 bins that count as 1e-12
                assert!((sum - 1.0).abs() <= 1e-9, "{cdf} {model:?}: {sum}");
            }
        }
    }

    #[test]
    fn decoder_slopes_are_derivatives() {
        for &cdf in Cdf::ALL {
            for model in models() {
                for level in [0_i32, 1, 2, 100, 128, 250, 254, 255] {
                    let x_0 = f64::from(level) / 127.5 - 1.0;
                    let slope = discretised_decoder_slope(cdf, x_0, model);
                    check(&format!("{cdf} decoder at {level}"), model, slope, |model| {
                        discretised_decoder(cdf, x_0, model)
                    });
                }
            }
        }
        let far = Gaussian { mean: 0.0, log_variance: -9.0 };
        assert_eq!(discretised_decoder(Cdf::Tanh, 0.5, far), -libm::log(1e-12));
        assert_eq!(discretised_decoder_slope(Cdf::Tanh, 0.5, far), Slope::default());
        let lost = Gaussian { mean: f64::NAN, log_variance: 0.0 };
        assert!(discretised_decoder(Cdf::Tanh, 0.5, lost).is_nan());
    }

    #[test]
    fn both_functions_are_nearly_the_same() {
        for i in -60..=60 {
            let x = f64::from(i) / 10.0;
            assert!((Cdf::Tanh.of(x) - Cdf::Exact.of(x)).abs() < 5e-4, "at {x}");
            assert!(
                (Cdf::Tanh.of(x) - 0.5 * (1.0 + ((2.0 / PI).sqrt() * (x + CUBIC * x.powi(3))).tanh())).abs() < 1e-15
            );
        }
        // Φ(1) from tables
        assert!((Cdf::Exact.of(1.0) - 0.841_344_746_068_542_9).abs() < 1e-15);
    }
}
