//! The bound's term L_t of an image and its gradient: what `vlb` and hybrid losses add to the gradient of the network's output.

use ddpm_tensor::Element;

use super::bound::{
    Cdf, Gaussian, bits, discretised_decoder, discretised_decoder_slope, gaussian_kl, gaussian_kl_slope,
};
use super::prediction::Combination;
use super::{Level, LogVariance, Posterior, Prediction, Schedule, Variance};

/// What one time step's term is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Term {
    /// μ̂ of x_t and the output.
    mean: Combination,
    /// (a, b) of μ̃ = a x_0 + b x_t.
    truth: (f64, f64),
    /// ln β̃_t.
    truth_log_variance: f64,
    /// ln σ_t².
    log_variance: LogVariance,
}

/// L_t for every t: KL(q(x_{t−1}|x_t, x_0) ‖ p(x_{t−1}|x_t)), and at t = 0 −ln p(x_0|x_1) of the discretised decoder (Ho et al.
/// 2020, eq. 5 and 13), with x̂_0 not clipped.
#[derive(Debug, Clone, PartialEq)]
pub struct StepBound {
    terms: Vec<Term>,
    /// Whether the mean has no gradient, as in the hybrid loss (Nichol and Dhariwal 2021, section 3.1).
    stops_mean: bool,
}

/// One image of a batch, flat, `[H, W, C]` each.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a, T> {
    /// x_0.
    pub x_0: &'a [T],
    /// x_t.
    pub x_t: &'a [T],
    /// What the network says of the mean.
    pub output: &'a [T],
    /// What it says of the variance, where that is learned.
    pub variance: Option<&'a [T]>,
}

impl StepBound {
    /// For a schedule and what the network says.
    pub fn new(
        schedule: &Schedule,
        posterior: &Posterior,
        prediction: Prediction,
        variance: Variance,
        stops_mean: bool,
    ) -> Self {
        let term = |t| Term {
            mean: prediction.mean(Level::of(schedule, t)),
            truth: posterior.mean(t),
            truth_log_variance: posterior.log_variance(Variance::FixedSmall, t),
            log_variance: posterior.learned_log_variance(variance, t),
        };
        Self { terms: (0..schedule.time_steps()).map(term).collect(), stops_mean }
    }

    /// L_t of an image in bits per dimension, and `factor` times the gradient of their *sum* over the dimensions, in nats, added to
    /// `d_output` and `d_variance`.
    ///
    /// # Panics
    /// If t ≥ T, as an array would.
    pub fn of_image<T: Element>(
        &self,
        t: usize,
        image: Observed<'_, T>,
        factor: f64,
        d_output: &mut [T],
        d_variance: Option<&mut [T]>,
    ) -> f64 {
        let term = self.terms[t];
        let mut d_variance = d_variance;
        let mut sum = 0.0;
        for (i, d_output) in d_output.iter_mut().enumerate() {
            let (x_0, x_t, output) = (image.x_0[i].to_f64(), image.x_t[i].to_f64(), image.output[i].to_f64());
            let said = image.variance.map_or(0.0, |variance| variance[i].to_f64());
            let model = Gaussian { mean: term.mean.of(x_t, output), log_variance: term.log_variance.of(said) };
            let (value, slope) = if t == 0 {
                (discretised_decoder(Cdf::Tanh, x_0, model), discretised_decoder_slope(Cdf::Tanh, x_0, model))
            } else {
                let mean = term.truth.0 * x_0 + term.truth.1 * x_t;
                let truth = Gaussian { mean, log_variance: term.truth_log_variance };
                (gaussian_kl(truth, model), gaussian_kl_slope(truth, model))
            };
            sum += value;
            if !self.stops_mean {
                *d_output += T::of(factor * slope.mean * term.mean.output);
            }
            if let Some(d_variance) = &mut d_variance {
                d_variance[i] += T::of(factor * slope.log_variance * term.log_variance.output);
            }
        }
        bits(sum / d_output.len().max(1) as f64)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::f64::consts::LN_2;

    use ddpm_tensor::random::{Address, Purpose};

    use super::*;
    use crate::diffusion::ScheduleSettings;
    use crate::diffusion::forward::Noising;

    const LEN: usize = 12;

    fn normals(sample: u64) -> Vec<f64> {
        let mut values = vec![0.0; LEN];
        Address::new(3, Purpose::Test).at_sample(sample).fill_normal(0, &mut values);
        values.into_iter().map(f64::from).collect()
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let schedule = ScheduleSettings::default().build().unwrap();
        let posterior = Posterior::new(&schedule);
        let x_0: Vec<f64> =
            [0, 1, 3, 64, 100, 127, 128, 200, 250, 253, 254, 255].map(|l| f64::from(l) / 127.5 - 1.0).into();
        for &prediction in Prediction::ALL {
            for &variance in Variance::ALL {
                for t in [0, 1, 40, 999] {
                    let level = Level::of(&schedule, t);
                    let (of_image, target) = (Noising::of_image(&schedule, t), prediction.target(level));
                    let mix = |n: Noising, i: usize, eps: &[f64]| n.signal * x_0[i] + n.noise * eps[i];
                    let eps = normals(0);
                    let x_t: Vec<f64> = (0..LEN).map(|i| mix(of_image, i, &eps)).collect();
                    // near the target, as far off as matters for the mean
                    let off = 0.5 * (0.5 * posterior.log_variance(Variance::FixedSmall, t)).exp()
                        / prediction.mean(level).output;
                    let said: Vec<f64> = (0..LEN).map(|i| mix(target, i, &eps) + off * normals(1)[i]).collect();
                    let about = if variance == Variance::Learned {
                        posterior.log_variance(Variance::FixedSmall, t)
                    } else {
                        0.2
                    };
                    let log_variance: Vec<f64> = normals(2).into_iter().map(|z| about + 0.3 * z).collect();
                    let bound = StepBound::new(&schedule, &posterior, prediction, variance, false);
                    let of = |output: &[f64], log_variance: &[f64]| {
                        let image = Observed { x_0: &x_0, x_t: &x_t, output, variance: Some(log_variance) };
                        let (mut d_output, mut d_variance) = (vec![0.0; LEN], vec![0.0; LEN]);
                        let value =
                            bound.of_image(t, image, 1.0 / (LN_2 * LEN as f64), &mut d_output, Some(&mut d_variance));
                        (value, d_output, d_variance)
                    };
                    let (_, d_output, d_variance) = of(&said, &log_variance);
                    for i in 0..LEN {
                        for (values, slopes, h, mean) in
                            [(&said, &d_output, 1e-4 * off.abs(), true), (&log_variance, &d_variance, 1e-5, false)]
                        {
                            let at = |h: f64| {
                                let mut moved = values.clone();
                                moved[i] += h;
                                if mean { of(&moved, &log_variance).0 } else { of(&said, &moved).0 }
                            };
                            let want = (at(h) - at(-h)) / (2.0 * h);
                            let got = slopes[i];
                            let scale = if mean { 1.0 / off.abs() } else { 1.0 };
                            assert!(
                                (got - want).abs() <= 1e-5 * want.abs() + 1e-7 * scale,
                                "{prediction}, {variance}, t = {t}, element {i}, mean {mean}: {got}, differences say {want}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_stopped_mean_has_no_gradient_and_a_perfect_network_costs_nothing() {
        let schedule = ScheduleSettings::default().build().unwrap();
        let posterior = Posterior::new(&schedule);
        let (x_0, eps, t) = (vec![0.2; LEN], normals(4), 500);
        let noising = Noising::of_image(&schedule, t);
        let x_t: Vec<f64> = eps.iter().map(|eps| noising.signal * 0.2 + noising.noise * eps).collect();
        let image = Observed { x_0: &x_0, x_t: &x_t, output: &eps, variance: Some(&[-1.0; LEN]) };
        // −1 is β̃ in a learned range
        let bound = StepBound::new(&schedule, &posterior, Prediction::Eps, Variance::LearnedRange, true);
        let (mut d_output, mut d_variance) = (vec![0.0; LEN], vec![0.0; LEN]);
        let value = bound.of_image(t, image, 1.0, &mut d_output, Some(&mut d_variance));
        assert!(value.abs() < 1e-12 && d_variance.iter().all(|d| d.abs() < 1e-9), "{value}, {d_variance:?}");
        let other = Observed { variance: Some(&[0.7; LEN]), ..image };
        bound.of_image(t, other, 1.0, &mut d_output, Some(&mut d_variance));
        assert_eq!(d_output, [0.0; LEN]);
        assert!(d_variance.iter().all(|d| *d > 1e-8), "a larger variance than needed costs: {d_variance:?}");
    }
}
