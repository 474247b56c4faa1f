//! SDE-DPM-Solver++(2M): the same for the stochastic equation (Lu et al. 2022b, appendix D).

use super::dpm::{self, Factors, Interval};
use super::{Plan, SamplerOptions, SolverType};
use crate::diffusion::{DiffusionError, Schedule};

/// x' = (σ_t/σ_0) e^{−h} x + α_t (1 − e^{−2h})(m_0 + D/2) + σ_t √(1 − e^{−2h}) z with D = (m_0 − m_1)/r_0; the solver type
/// `heun` has α_t (1 − e^{−2h}) m_0 + α_t (1 − (1 − e^{−2h})/2h) D. First order leaves D out.
///
/// # Errors
/// Options out of range, or a prediction that says nothing of x_0 at some step.
pub fn plan(schedule: &Schedule, options: &SamplerOptions) -> Result<Plan, DiffusionError> {
    dpm::plan(schedule, options, 2, factors)
}

fn factors(i: &Interval, order: usize, options: &SamplerOptions) -> Factors {
    let phi = -libm::expm1(-2.0 * i.h);
    let m_0 = i.alpha * phi;
    let d = match (order, options.solver_type) {
        (1, _) => 0.0,
        (_, SolverType::Heun) => i.alpha * (1.0 - phi / (2.0 * i.h)) / i.r_0,
        _ => m_0 / 2.0 / i.r_0,
    };
    Factors { x: i.shrink * libm::exp(-i.h), m: [m_0 + d, -d, 0.0], z: i.sigma * phi.sqrt() }
}
