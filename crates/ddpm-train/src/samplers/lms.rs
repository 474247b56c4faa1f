//! The linear multistep method over noise levels (k-diffusion's `lms`): Adams–Bashforth with unequal steps.

use super::grid::{FinalSigma, Grid};
use super::{Plan, ReverseStep, SamplerOptions};
use crate::diffusion::{DiffusionError, Schedule};

/// Slopes that a step uses where nobody says how many.
const ORDER: usize = 4;

/// x' = x + Σ_j w_j d_{i−j} with the slopes d of this and up to three earlier calls; w_j is the integral from s_i to s_{i+1}
/// of the Lagrange polynomial that is 1 at s_{i−j} and 0 at the others.
///
/// # Errors
/// Options out of range, or a prediction that says nothing of x_0 at some step.
pub fn plan(schedule: &Schedule, options: &SamplerOptions) -> Result<Plan, DiffusionError> {
    let grid = Grid::over_s(schedule, options, FinalSigma::Zero)?;
    let highest = options.order_up_to(ORDER, ORDER)?;
    let steps = (0..grid.len()).map(|i| {
        let order = highest.min(i + 1);
        let mut step = ReverseStep::of_noise(schedule, options, grid.times[i], grid.s[i])?;
        let d = step.eps(options);
        let weight = |j: usize| lagrange_integral(&grid.s, i, order, j);
        step.value = d;
        step.advance.now = d.times(weight(0));
        step.advance.now.x += 1.0;
        step.advance.values = (1..order).map(|j| (j, weight(j))).collect();
        Ok(step)
    });
    Plan::new(grid.start(options), steps)
}

/// w_j, by Gauss and Legendre with two points, which is exact for cubic polynomials.
fn lagrange_integral(s: &[f64], i: usize, order: usize, j: usize) -> f64 {
    let basis =
        |at: f64| -> f64 { (0..order).filter(|&k| k != j).map(|k| (at - s[i - k]) / (s[i - j] - s[i - k])).product() };
    let (half, middle) = ((s[i + 1] - s[i]) / 2.0, f64::midpoint(s[i], s[i + 1]));
    let offset = half / 3.0_f64.sqrt();
    half * (basis(middle - offset) + basis(middle + offset))
}
