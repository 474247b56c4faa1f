//! Where the data are Gaussian the best network is known and linear, so that the distribution a sampler makes can be
//! followed exactly:
//! with x ~ N(m, s²), a step x' = a x + b + σ z gives N(a m + b, a² s² + σ²). No random number is drawn.

use ddpm_train::diffusion::{BetaSchedule, Level, Prediction, Schedule, ScheduleSettings, Variance};
use ddpm_train::samplers::{self, SamplerOptions, Spacing};

use super::assert_close;

const MEAN: f64 = 0.3;
const DEVIATION: f64 = 0.2;

/// What the best network for x_0 ~ N(MEAN, DEVIATION²) predicts of x_t.
pub(crate) fn best(prediction: Prediction, level: Level, x_t: f64) -> f64 {
    let alpha_bar = level.alpha_bar;
    let variance = DEVIATION * DEVIATION;
    let gain = variance * alpha_bar.sqrt() / (alpha_bar * variance + 1.0 - alpha_bar);
    let x_0 = MEAN + gain * (x_t - alpha_bar.sqrt() * MEAN);
    Prediction::X0.convert(prediction, level).of(x_t, x_0)
}

/// Mean and standard deviation of what the sampler makes.
pub(crate) fn sampled(name: &str, schedule: &Schedule, options: &SamplerOptions) -> (f64, f64) {
    let options = SamplerOptions { clip: None, ..options.clone() };
    let plan = (samplers::find(name).unwrap().plan)(schedule, &options).unwrap();
    let (mut mean, mut variance) = (0.0, 1.0);
    for step in &plan.steps {
        let next = |x: f64| step.apply(x, best(options.prediction, step.level, x), 0.0);
        let (a, b) = (next(1.0) - next(0.0), next(0.0));
        mean = a * mean + b;
        variance = a * a * variance + step.sigma * step.sigma;
    }
    (mean, variance.sqrt())
}

#[test]
fn all_steps_recover_the_data() {
    for kind in [BetaSchedule::Linear, BetaSchedule::Cosine, BetaSchedule::ScaledLinear] {
        let schedule = ScheduleSettings { schedule: kind, ..ScheduleSettings::default() }.build().unwrap();
        for &prediction in Prediction::ALL {
            let options = SamplerOptions { prediction, ..SamplerOptions::default() };
            let small = SamplerOptions { variance: Variance::FixedSmall, ..options.clone() };
            let half = SamplerOptions { eta: 0.5, ..options.clone() };
            for (name, options) in [("ddpm", &options), ("ddpm", &small), ("ddim", &options), ("ddim", &half)] {
                let (mean, deviation) = sampled(name, &schedule, options);
                // x_T of a schedule still holds a little of the image, which samplers start without.
                assert_close(&format!("{name} {kind} mean"), mean, MEAN, 0.01, 0.0);
                assert_close(&format!("{name} {kind} deviation"), deviation, DEVIATION, 0.02, 0.0);
            }
        }
    }
}

#[test]
fn few_implicit_steps_come_near_and_few_ancestral_ones_less() {
    let schedule = ScheduleSettings::default().build().unwrap();
    for &spacing in Spacing::ALL {
        let options = SamplerOptions { spacing: Some(spacing), steps: Some(50), ..SamplerOptions::default() };
        let (mean, deviation) = sampled("ddim", &schedule, &options);
        let near = if spacing == Spacing::Quad { 0.1 } else { 0.01 }; // `quad` starts at 0.8 T, where x is not yet all noise
        assert_close(&format!("{spacing} mean"), mean, MEAN, near, 0.0);
        assert_close(&format!("{spacing} deviation"), deviation, DEVIATION, 0.15, 0.0);
        let small = SamplerOptions { variance: Variance::FixedSmall, ..options };
        let ancestral = sampled("ddpm", &schedule, &small).1;
        assert!(ancestral < deviation, "β̃ is too small a variance for few steps: {ancestral} of {DEVIATION}");
    }
}
