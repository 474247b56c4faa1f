//! UniPC: a predictor of any order and a corrector that costs no call (Zhao et al. 2023, algorithms 5 to 8).

use super::grid::{Grid, alpha_sigma_lambda};
use super::step::{Mix, Update};
use super::{Plan, ReverseStep, SamplerOptions, SolverType};
use crate::diffusion::{DiffusionError, Schedule};

/// Order where nobody says which, and the highest.
const ORDER: (usize, usize) = (2, 3);

/// With u = −h, B = e^u − 1 (or u, the solver type `bh1`), m_0 the x̂_0 of the call at λ_0, m_i of those before it,
/// r_i = (λ_i − λ_0)/h and D_i = (m_i − m_0)/r_i:
///
/// x' = (σ_t/σ_0) x − α_t (e^u − 1) m_0 − α_t B Σ ρ_i D_i, where ρ solves Σ_i r_i^{k−1} ρ_i = b_k for k = 1, 2, …, with
/// b_k = k! g_k/B, g_1 = (e^u − 1)/u − 1 and g_{k+1} = g_k/u − 1/(k+1)!.
///
/// The call at x' gives m_t. Before its own step it replaces x' by the same formula with one more unknown, r = 1 and
/// D = m_t − m_0. The predictor of order 2 and the corrector of order 1 take ρ = ½.
///
/// # Errors
/// Options out of range, or a prediction that says nothing of x_0 at some step.
pub fn plan(schedule: &Schedule, options: &SamplerOptions) -> Result<Plan, DiffusionError> {
    let grid = Grid::over_lambda(schedule, options)?;
    let highest = options.order_up_to(ORDER.0, ORDER.1)?;
    let left = |i: usize| if options.lower_order_final { grid.len() - i } else { highest };
    let order = |i: usize| match grid.s[i + 1] {
        0.0 => 1, // λ is infinite there
        _ => highest.min(left(i)).min(i + 1),
    };
    let steps = (0..grid.len()).map(|i| {
        let (alpha, ..) = alpha_sigma_lambda(grid.s[i]);
        let step = ReverseStep::of_x_t(schedule, options, grid.times[i], alpha * alpha)?;
        let correct = (i > 0 && !options.disable_corrector.contains(&(i - 1))).then(|| {
            let Solution { x, m_0, earlier, m_t } = Solution::of(&grid.s, i - 1, order(i - 1), true, options);
            let values = [vec![(1, m_0)], earlier.into_iter().map(|(ago, factor)| (ago + 1, factor)).collect()];
            Update { now: Mix { x_0: m_t, ..Mix::default() }, values: values.concat(), base: Some((1, x)) }
        });
        let Solution { x, m_0, earlier, .. } = Solution::of(&grid.s, i, order(i), false, options);
        let advance = Update { now: Mix { x, x_0: m_0, output: 0.0 }, values: earlier, base: None };
        Ok(ReverseStep { correct, advance, ..step })
    });
    Plan::new(1.0, steps)
}

/// The factors of one formula.
struct Solution {
    x: f64,
    m_0: f64,
    /// (calls before that of m_0, factor).
    earlier: Vec<(usize, f64)>,
    m_t: f64,
}

impl Solution {
    /// From level `i` to the next, with `order` values up to m_0; and m_t in a corrector.
    fn of(s: &[f64], i: usize, order: usize, corrects: bool, options: &SamplerOptions) -> Self {
        let (_, sigma_0, lambda_0) = alpha_sigma_lambda(s[i]);
        let (alpha, sigma, lambda_t) = alpha_sigma_lambda(s[i + 1]);
        let h = lambda_t - lambda_0;
        let (u, growth) = (-h, libm::expm1(-h));
        let b_h = if options.solver_type == SolverType::Bh1 { u } else { growth };

        let mut r: Vec<f64> = (1..order).map(|back| (alpha_sigma_lambda(s[i - back]).2 - lambda_0) / h).collect();
        if corrects {
            r.push(1.0);
        }
        let rho = match (order, corrects) {
            (1, true) | (2, false) => vec![0.5],
            _ => {
                let mut g = growth / u - 1.0;
                let mut factorial = 1.0;
                let mut b = Vec::new();
                for k in 1..=r.len() {
                    b.push(factorial * g / b_h);
                    factorial *= (k + 1) as f64;
                    g = g / u - 1.0 / factorial;
                }
                solve((0..r.len()).map(|k| r.iter().map(|r| r.powi(k as i32)).collect()).collect(), b)
            }
        };
        // What (m − m_0) is multiplied with, for each m.
        let scaled: Vec<f64> = rho.iter().zip(&r).map(|(rho, r)| -alpha * b_h * rho / r).collect();
        let m_0 = -alpha * growth - scaled.iter().sum::<f64>();
        let m_t = if corrects { scaled.last().copied().unwrap_or(0.0) } else { 0.0 };
        Self { x: sigma / sigma_0, m_0, earlier: (1..order).zip(scaled).collect(), m_t }
    }
}

/// The solution of `a` ρ = `b`, by elimination with the largest pivot.
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|&i, &j| a[i][column].abs().total_cmp(&a[j][column].abs())).unwrap_or(column);
        a.swap(column, pivot);
        b.swap(column, pivot);
        for row in column + 1..n {
            let factor = a[row][column] / a[column][column];
            let (above, below) = a.split_at_mut(row);
            for (to, from) in below[0][column..].iter_mut().zip(&above[column][column..]) {
                *to -= factor * from;
            }
            b[row] -= factor * b[column];
        }
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|k| a[row][k] * b[k]).sum();
        b[row] = (b[row] - known) / a[row][row];
    }
    b
}
