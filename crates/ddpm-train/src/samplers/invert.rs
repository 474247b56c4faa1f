//! DDIM the other way: from an image to the latent that becomes it (Song et al. 2021, section 4.3).

use super::step::{Mix, Update};
use super::{Plan, ReverseStep, SamplerOptions, Spacing};
use crate::diffusion::{DiffusionError, Prediction, Schedule};

/// The steps of [`ddim`](super::ddim::plan) at η = 0 backwards: x_t = √(ᾱ_t/ᾱ_s) x_s + (√(1−ᾱ_t) − √(ᾱ_t (1−ᾱ_s)/ᾱ_s)) ε̂,
/// where ε̂ should be that of x_t, which is not known yet. The first guess is that of x_s at time step t; every further
/// of the `iterations` puts the x_t found so far into the network and solves again, so that the fixed point is the exact
/// inverse (Pan et al. 2023).
///
/// x̂_0 is not bounded, since that could not be undone: sample without a bound for the image to come back.
///
/// # Errors
/// Options out of range, or a prediction that says nothing of ε at some step.
pub fn plan(schedule: &Schedule, options: &SamplerOptions, iterations: usize) -> Result<Plan, DiffusionError> {
    let options = SamplerOptions { clip: None, threshold: None, skip: 0, ..options.clone() };
    let mut times = options.time_steps(schedule, Spacing::Leading)?;
    times.reverse();
    let mut from = if options.set_alpha_to_one { 1.0 } else { schedule.alpha_bar()[0] };
    // x̂_0 and μ̂ lie near x_t where there is little noise, and ε and v do not.
    let follows_noise = matches!(options.prediction, Prediction::Eps | Prediction::V);
    let mut steps = Vec::with_capacity(times.len() * iterations.max(1));
    for t in times {
        let to = schedule.alpha_bar()[t];
        if to >= from {
            continue; // the last step led to ᾱ_0, and this is ᾱ_0
        }
        let scale = (to / from).sqrt();
        let eps = (1.0 - to).sqrt() - scale * (1.0 - from).sqrt();
        for iteration in 0..iterations.max(1) {
            // What the network is given holds the noise of x_s at first, then that of x_t. But what it says of x_0 it says of an
            // x_t, and the difference of the two gives an ε that is far off where there is little noise.
            let seen = if iteration == 0 && follows_noise { from } else { to };
            let mut step = ReverseStep::of_x_t(schedule, &options, t as f64, seen)?;
            let guess = step.eps(&options).times(eps);
            step.advance = match iteration {
                0 => Update { now: guess.plus(Mix { x: scale, ..Mix::default() }), ..Update::default() },
                ago => Update { now: guess, base: Some((ago, scale)), ..Update::default() },
            };
            steps.push(Ok(step));
        }
        from = to;
    }
    Plan::new(1.0, steps.into_iter())
}
