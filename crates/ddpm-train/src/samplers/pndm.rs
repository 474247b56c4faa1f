//! Pseudo numerical methods (Liu et al. 2022, PNDM): the last ε̂ combined as in linear multistep methods (PLMS), with a
//! start by two half-steps or by Runge and Kutta's method (PRK).

use super::step::{Mix, Update};
use super::{Bound, Plan, Previous, ReverseStep, SamplerOptions, Spacing};
use crate::diffusion::{DiffusionError, Level, Prediction, Schedule};

/// Steps of the Runge-Kutta start.
const START: usize = 3;

/// Each step goes from ᾱ_t to ᾱ_s as DDIM does, x_s = √(ᾱ_s/ᾱ_t) x_t − (ᾱ_s − ᾱ_t)/D · ε' with
/// D = ᾱ_t √(1−ᾱ_s) + √(ᾱ_t (1−ᾱ_t) ᾱ_s) (Liu et al. 2022, eq. 11), where ε' is made of the last ε̂:
/// (3, −1)/2, (23, −16, 5)/12 and then (55, −59, 37, −9)/24.
///
/// The first step is taken twice: to s with ε̂_t, and, from x_t again, with the mean of ε̂_t and the ε̂_s found there. With
/// the Runge-Kutta start the first three steps take four calls each: ε̂ at t, twice at the middle, at s, weighed 1/6, 1/3,
/// 1/3, 1/6.
///
/// # Errors
/// Options out of range, or a prediction that says nothing of ε at some step.
pub fn plan(schedule: &Schedule, options: &SamplerOptions) -> Result<Plan, DiffusionError> {
    let times = options.time_steps(schedule, Spacing::Leading)?;
    let stride = schedule.time_steps() / options.count(schedule);
    let to = |i: usize| match options.previous {
        Previous::Listed => times.get(i + 1).copied(),
        Previous::FixedStride => times[i].checked_sub(stride),
    };
    let mut calls = Calls { schedule, options, steps: Vec::new() };
    // Calls whose ε̂ enters the multistep formula, oldest first.
    let mut kept: Vec<usize> = Vec::new();
    let mut i = 0;
    if !options.skip_prk_steps && times.len() > START {
        while i < START {
            let (t, s) = (times[i], times[i + 1]);
            kept.push(calls.steps.len());
            let half = if options.previous == Previous::Listed { (t - s) / 2 } else { stride / 2 };
            let middle = (s + half).min(t);
            calls.push(t, (t, Some(t.saturating_sub(half))), &[1.0], 0)?;
            calls.push(middle, (t, Some(middle)), &[1.0], 1)?;
            calls.push(middle, (t, Some(s)), &[1.0], 2)?;
            calls.push(s, (t, Some(s)), &[1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0], 3)?;
            i += 1;
        }
    } else if times.len() > 1 {
        kept.push(0);
        calls.push(times[0], (times[0], to(0)), &[1.0], 0)?;
        let from = match options.previous {
            Previous::Listed => times[0],
            Previous::FixedStride => (times[1] + stride).min(schedule.time_steps() - 1),
        };
        calls.push(times[1], (from, Some(times[1])), &[0.5, 0.5], 1)?;
        i = 1;
    }
    for (i, &t) in times.iter().enumerate().skip(i) {
        let here = calls.steps.len();
        kept.push(here);
        let weights: &[f64] = match kept.len() {
            1 => &[1.0],
            2 => &[1.5, -0.5],
            3 => &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
            _ => &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
        };
        let ago: Vec<(usize, f64)> = kept.iter().rev().map(|call| here - call).zip(weights.iter().copied()).collect();
        calls.push_weighted(t, (t, to(i)), &ago, 0)?;
    }
    Plan::new(1.0, calls.steps.into_iter().map(Ok))
}

/// The calls of a plan that is being made.
struct Calls<'a> {
    schedule: &'a Schedule,
    options: &'a SamplerOptions,
    steps: Vec<ReverseStep>,
}

impl Calls<'_> {
    /// A call at time step t, and a transfer `(from, to)` of the x of `base` calls ago with the ε̂ of this and the last calls
    /// in these weights, oldest first.
    fn push(
        &mut self,
        t: usize,
        transfer: (usize, Option<usize>),
        weights: &[f64],
        base: usize,
    ) -> Result<(), DiffusionError> {
        let ago: Vec<_> = (0..weights.len()).map(|ago| (ago, weights[weights.len() - 1 - ago])).collect();
        self.push_weighted(t, transfer, &ago, base)
    }

    /// The same with (calls ago, weight).
    fn push_weighted(
        &mut self,
        t: usize,
        (from, to): (usize, Option<usize>),
        weights: &[(usize, f64)],
        base: usize,
    ) -> Result<(), DiffusionError> {
        let (schedule, options) = (self.schedule, self.options);
        let alpha_bar = |t: usize| schedule.alpha_bar()[t];
        let last = if options.set_alpha_to_one { 1.0 } else { alpha_bar(0) };
        let (a, b) = (alpha_bar(from), to.map_or(last, alpha_bar));
        // A transfer is made with ε alone, whatever the network predicts.
        Prediction::Eps.check(from as f64, Level::of(schedule, from))?;
        let mut scale = (b / a).sqrt();
        let mut eps = -(b - a) / (a * (1.0 - b).sqrt() + (a * (1.0 - a) * b).sqrt());

        let mut step = ReverseStep::of_x_t(schedule, options, t as f64, alpha_bar(t))?;
        step.value = step.eps(options);
        if options.prediction == Prediction::V && options.bound() == Bound::None {
            // The v are combined, and ε' = √ᾱ v' + √(1−ᾱ) x is that of the x that the transfer begins with.
            step.value = Mix { output: 1.0, ..Mix::default() };
            scale += eps * (1.0 - a).sqrt();
            eps *= a.sqrt();
        }
        let now = weights.iter().find(|(ago, _)| *ago == 0).map_or(0.0, |(_, weight)| *weight);
        step.advance = Update {
            now: step.value.times(eps * now),
            values: weights.iter().filter(|(ago, _)| *ago > 0).map(|&(ago, weight)| (ago, eps * weight)).collect(),
            base: None,
        };
        match base {
            0 => step.advance.now = step.advance.now.plus(Mix { x: scale, ..Mix::default() }),
            ago => step.advance.base = Some((ago, scale)),
        }
        self.steps.push(step);
        Ok(())
    }
}
