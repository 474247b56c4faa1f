//! Euler's method (Karras et al. 2022, algorithm 1 without churn and correction).

use super::grid::Grid;
use super::step::Mix;
use super::{Plan, ReverseStep, SamplerOptions};
use crate::diffusion::{DiffusionError, Schedule};

/// x' = x + (s' − s) d with the slope d = (x − x̂_0)/s, which is (s'/s) x + (1 − s'/s) x̂_0.
///
/// # Errors
/// Options out of range, or a prediction that says nothing of x_0 at some step.
pub fn plan(schedule: &Schedule, options: &SamplerOptions) -> Result<Plan, DiffusionError> {
    let grid = Grid::over_s(schedule, options, options.final_sigma)?;
    let steps = grid.times.iter().zip(grid.s.windows(2)).map(|(&t, s)| {
        let share = s[1] / s[0];
        Ok(ReverseStep::of_noise(schedule, options, t, s[0])?.to(Mix { x: share, x_0: 1.0 - share, output: 0.0 }))
    });
    Plan::new(grid.start(options), steps)
}
