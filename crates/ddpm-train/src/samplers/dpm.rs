//! What the DPM-Solver++ samplers have in common (Lu et al. 2022b, "DPM-Solver++").
//!
//! They solve for x in λ exactly but for x̂_0, which they take as a polynomial through its last values m_0 (now), m_1, m_2:
//! constant at first order, then a line, then a parabola. Orders rise as values come in, and fall at the end of short runs.

use super::grid::{Grid, alpha_sigma_lambda};
use super::step::{Mix, Update};
use super::{Plan, ReverseStep, SamplerOptions};
use crate::diffusion::{DiffusionError, Schedule};

/// Runs shorter than this end with lower orders, which are more stable there.
const SHORT: usize = 15;

/// One interval of a solver: from (α_0, σ_0, λ_0) to (α_t, σ_t, λ_t), and the intervals before it.
#[derive(Debug)]
pub(super) struct Interval {
    /// √ᾱ at its end.
    pub(super) alpha: f64,
    /// √(1−ᾱ) at its end.
    pub(super) sigma: f64,
    /// σ_t/σ_0.
    pub(super) shrink: f64,
    /// h = λ_t − λ_0; infinite where it ends at the image.
    pub(super) h: f64,
    /// r_0 = (λ_0 − λ_1)/h, where λ_1 was one call ago.
    pub(super) r_0: f64,
    /// r_1 = (λ_1 − λ_2)/h.
    pub(super) r_1: f64,
}

/// The factors of m_0, m_1 and m_2 in a step, of x, and of z.
#[derive(Debug, Default)]
pub(super) struct Factors {
    /// Of x.
    pub(super) x: f64,
    /// Of m_0, m_1, m_2.
    pub(super) m: [f64; 3],
    /// Of z.
    pub(super) z: f64,
}

/// A plan whose steps of order 1 to `highest` have the factors that `factors(interval, order)` gives.
pub(super) fn plan(
    schedule: &Schedule,
    options: &SamplerOptions,
    highest: usize,
    factors: fn(&Interval, usize, &SamplerOptions) -> Factors,
) -> Result<Plan, DiffusionError> {
    let grid = Grid::over_lambda(schedule, options)?;
    // A model's settings may ask for the first order; otherwise the sampler's name says it.
    let highest = if options.order == Some(1) { 1 } else { highest };
    let steps = (0..grid.len()).map(|i| {
        let order = order(options, &grid, i, highest);
        let Factors { x, m: [m_0, earlier @ ..], z } = factors(&Interval::of(&grid.s, i), order, options);
        let (alpha, ..) = alpha_sigma_lambda(grid.s[i]);
        let step = ReverseStep::of_x_t(schedule, options, grid.times[i], alpha * alpha)?;
        let values = (1..order).zip(earlier).collect();
        let advance = Update { now: Mix { x, x_0: m_0, output: 0.0 }, values, base: None };
        Ok(ReverseStep { advance, sigma: z, ..step })
    });
    Plan::new(1.0, steps)
}

fn order(options: &SamplerOptions, grid: &Grid, i: usize, highest: usize) -> usize {
    let steps = grid.len();
    let short = options.lower_order_final && steps < SHORT;
    let last = match steps - i {
        1 if options.euler_at_final || short || grid.s[i + 1] == 0.0 => 1,
        2 if short => 2,
        _ => highest,
    };
    highest.min(i + 1).min(last)
}

impl Interval {
    fn of(s: &[f64], i: usize) -> Self {
        let lambda = |i: usize| alpha_sigma_lambda(s[i]).2;
        let (_, sigma_0, lambda_0) = alpha_sigma_lambda(s[i]);
        let (alpha, sigma, lambda_t) = alpha_sigma_lambda(s[i + 1]);
        let h = lambda_t - lambda_0;
        let r = |back: usize| if i >= back { (lambda(i + 1 - back) - lambda(i - back)) / h } else { f64::NAN };
        Self { alpha, sigma, shrink: sigma / sigma_0, h, r_0: r(1), r_1: r(2) }
    }
}
