//! DPM-Solver++(2M): second order with one call a step (Lu et al. 2022b, algorithm 2).

use super::dpm::{self, Factors, Interval};
use super::{Plan, SamplerOptions, SolverType};
use crate::diffusion::{DiffusionError, Schedule};

/// x' = (σ_t/σ_0) x − α_t (e^{−h} − 1)(m_0 + D/2) with D = (m_0 − m_1)/r_0; the solver type `heun` has
/// − α_t (e^{−h} − 1) m_0 + α_t ((e^{−h} − 1)/h + 1) D. First order leaves D out.
///
/// # Errors
/// Options out of range, or a prediction that says nothing of x_0 at some step.
pub fn plan(schedule: &Schedule, options: &SamplerOptions) -> Result<Plan, DiffusionError> {
    dpm::plan(schedule, options, 2, factors)
}

pub(super) fn factors(i: &Interval, order: usize, options: &SamplerOptions) -> Factors {
    let phi = libm::expm1(-i.h);
    let m_0 = -i.alpha * phi;
    let d = match (order, options.solver_type) {
        (1, _) => 0.0,
        (_, SolverType::Heun) => i.alpha * (phi / i.h + 1.0) / i.r_0,
        _ => m_0 / 2.0 / i.r_0,
    };
    Factors { x: i.shrink, m: [m_0 + d, -d, 0.0], z: 0.0 }
}
