//! Implicit sampling (Song et al. 2021, eq. 12): few steps, deterministic at η = 0.

use super::{Bound, Mix, Plan, Previous, ReverseStep, SamplerOptions, Spacing};
use crate::diffusion::{DiffusionError, Schedule};

/// x_s = √ᾱ_s x̂_0 + √(1 − ᾱ_s − σ²) ε̂ + σ z with σ = η √((1 − ᾱ_s)/(1 − ᾱ_t)) √(1 − ᾱ_t/ᾱ_s) (Song et al. 2021, eq.
/// 12 and 16).
///
/// ε̂ is what the network predicted, also where x̂_0 was clipped, unless `clipped_eps` asks for the ε that belongs to
/// the clipped x̂_0 (diffusers' `use_clipped_model_output`; guided diffusion always does so).
///
/// # Errors
/// Options out of range, or a prediction that says nothing of x_0 at some step.
pub fn plan(schedule: &Schedule, options: &SamplerOptions) -> Result<Plan, DiffusionError> {
    let time_steps = options.time_steps(schedule, Spacing::Leading)?;
    let stride = schedule.time_steps() / options.count(schedule);
    let last = if options.set_alpha_to_one { 1.0 } else { schedule.alpha_bar()[0] };
    let steps = time_steps.iter().enumerate().map(|(i, &t)| {
        let previous = match options.previous {
            Previous::Listed => time_steps.get(i + 1).copied(),
            Previous::FixedStride => t.checked_sub(stride),
        };
        let alpha_bar = schedule.alpha_bar()[t];
        let alpha_bar_s = previous.map_or(last, |s| schedule.alpha_bar()[s]);
        let step = ReverseStep::of_x_t(schedule, options, t as f64, alpha_bar)?;

        let variance = (1.0 - alpha_bar_s) / (1.0 - alpha_bar) * (1.0 - alpha_bar / alpha_bar_s);
        let sigma = options.eta * variance.max(0.0).sqrt();
        let direction = (1.0 - alpha_bar_s - sigma * sigma).max(0.0).sqrt();
        let signal = alpha_bar_s.sqrt();
        let eps = if options.clipped_eps && step.bound != Bound::None {
            step.eps(options)
        } else {
            let eps = options.prediction.eps(step.level);
            Mix { x: eps.x_t, x_0: 0.0, output: eps.output }
        };
        let now = Mix { x_0: signal, ..Mix::default() }.plus(eps.times(direction));
        Ok(ReverseStep { sigma, ..step.to(now) })
    });
    Plan::new(1.0, steps)
}
