//! Ancestral sampling (Ho et al. 2020, algorithm 2), over all time steps or some of them.

use super::{Mix, Plan, ReverseStep, SamplerOptions, Spacing};
use crate::diffusion::{DiffusionError, Posterior, Schedule};

/// Each step draws from N(μ̃(x_t, x̂_0), σ²), the posterior of the chain respaced to the visited time steps.
///
/// A learned σ² is the network's own; its range is that of the respaced chain.
///
/// The last step, to x_0, adds no noise, whatever its time step. (diffusers goes by the time step alone: with `trailing` and
/// `fixed_large` it ends on a noisy image.)
///
/// # Errors
/// Options out of range, or a prediction that says nothing of x_0 at some step.
pub fn plan(schedule: &Schedule, options: &SamplerOptions) -> Result<Plan, DiffusionError> {
    let mut time_steps = options.time_steps(schedule, Spacing::Leading)?;
    time_steps.reverse();
    let chain = schedule.respaced(&time_steps)?;
    let posterior = Posterior::new(&chain.schedule).with_blend(options.variance_blend);
    let learned = options.variance.is_learned();
    let steps = (0..time_steps.len()).rev().map(|i| {
        let (x_0, x) = posterior.mean(i);
        let sigma = if learned { 0.0 } else { posterior.sampling_variance(options.variance, i).sqrt() };
        let log_variance = (learned && i > 0).then(|| posterior.learned_log_variance(options.variance, i));
        let alpha_bar = chain.schedule.alpha_bar()[i];
        let step = ReverseStep::of_x_t(schedule, options, time_steps[i] as f64, alpha_bar)?;
        Ok(ReverseStep { sigma, log_variance, ..step.to(Mix { x, x_0, output: 0.0 }) })
    });
    Plan::new(1.0, steps)
}
