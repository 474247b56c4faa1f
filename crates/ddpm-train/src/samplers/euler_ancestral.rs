//! Euler's method with a posterior's noise at every step (k-diffusion's `euler_ancestral`).

use super::grid::{FinalSigma, Grid};
use super::step::Mix;
use super::{Plan, ReverseStep, SamplerOptions};
use crate::diffusion::{DiffusionError, Schedule};

/// x' = x + (s_down − s) d + s_up z with s_up² = s'² (s² − s'²)/s² and s_down² = s'² − s_up²: the variance of the
/// posterior is new noise, and the rest an Euler step.
///
/// # Errors
/// Options out of range, or a prediction that says nothing of x_0 at some step.
pub fn plan(schedule: &Schedule, options: &SamplerOptions) -> Result<Plan, DiffusionError> {
    let grid = Grid::over_s(schedule, options, FinalSigma::Zero)?;
    let steps = grid.times.iter().zip(grid.s.windows(2)).map(|(&t, s)| {
        let (from, to) = (s[0], s[1]);
        let up = to * ((from * from - to * to) / (from * from)).sqrt();
        let down = (to * to - up * up).max(0.0).sqrt();
        let share = down / from;
        let step = ReverseStep::of_noise(schedule, options, t, from)?;
        Ok(ReverseStep { sigma: up, ..step.to(Mix { x: share, x_0: 1.0 - share, output: 0.0 }) })
    });
    Plan::new(grid.start(options), steps)
}
