//! Heun's second-order method (Karras et al. 2022, algorithms 1 and 2).

use super::grid::{FinalSigma, Grid, time_of};
use super::step::Update;
use super::{Plan, ReverseStep, SamplerOptions};
use crate::diffusion::{DiffusionError, Schedule};

/// Two calls a step: x' = x + (s' − s) d, then x + (s' − s)(d + d')/2 with the slope d' at x' and s'; the last step, to
/// s' = 0, is Euler's.
///
/// With churn, x is first noised from s to ŝ = s (1 + γ), γ = min(churn/S, √2 − 1), and the step begins there. The noise is
/// added at the end of the step before; the first step starts with all the noise that there is.
///
/// # Errors
/// Options out of range, or a prediction that says nothing of x_0 at some step.
pub fn plan(schedule: &Schedule, options: &SamplerOptions) -> Result<Plan, DiffusionError> {
    let grid = Grid::over_s(schedule, options, FinalSigma::Zero)?;
    let gamma = (options.churn / grid.len() as f64).min(std::f64::consts::SQRT_2 - 1.0);
    let churned = |i: usize| if i == 0 { grid.s[0] } else { grid.s[i] * (1.0 + gamma) };
    let mut steps = Vec::with_capacity(2 * grid.len());
    for i in 0..grid.len() {
        let (s, next) = (churned(i), grid.s[i + 1]);
        let t = if s == grid.s[i] { grid.times[i] } else { time_of(schedule, s) };
        let mut first = ReverseStep::of_noise(schedule, options, t, s)?;
        let d = first.eps(options);
        first.value = d;
        first.advance.now = d.times(next - s);
        first.advance.now.x += 1.0;
        if next == 0.0 {
            // x − s d, which is x̂_0 whatever rounding does
            steps.push(first.to(super::Mix::X_0));
            continue;
        }
        steps.push(first);

        let mut second = ReverseStep::of_noise(schedule, options, grid.times[i + 1], next)?;
        let half = (next - s) / 2.0;
        let now = second.eps(options).times(half);
        second.advance = Update { now, values: vec![(1, half)], base: Some((1, 1.0)) };
        let after = churned(i + 1);
        second.sigma = (after * after - next * next).max(0.0).sqrt();
        steps.push(second);
    }
    Plan::new(grid.start(options), steps.into_iter().map(Ok))
}
