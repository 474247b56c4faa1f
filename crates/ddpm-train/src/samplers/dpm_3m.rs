//! DPM-Solver++(3M): third order with one call a step (Lu et al. 2022b, appendix B).

use super::dpm::{self, Factors, Interval};
use super::{Plan, SamplerOptions, dpm_2m};
use crate::diffusion::{DiffusionError, Schedule};

/// x' = (σ_t/σ_0) x − α_t φ m_0 + α_t (φ/h + 1) D_1 − α_t ((φ + h)/h² − ½) D_2 with φ = e^{−h} − 1, E_0 = (m_0 − m_1)/r_0,
/// E_1 = (m_1 − m_2)/r_1, D_1 = E_0 + r_0 (E_0 − E_1)/(r_0 + r_1) and D_2 = (E_0 − E_1)/(r_0 + r_1).
/// Lower orders are those of [`dpm_2m`].
///
/// # Errors
/// Options out of range, or a prediction that says nothing of x_0 at some step.
pub fn plan(schedule: &Schedule, options: &SamplerOptions) -> Result<Plan, DiffusionError> {
    dpm::plan(schedule, options, 3, factors)
}

fn factors(i: &Interval, order: usize, options: &SamplerOptions) -> Factors {
    if order < 3 {
        return dpm_2m::factors(i, order, options);
    }
    let phi = libm::expm1(-i.h);
    let (d_1, d_2) = (i.alpha * (phi / i.h + 1.0), -i.alpha * ((phi + i.h) / (i.h * i.h) - 0.5));
    // What is multiplied with E_0 and with E_1.
    let e_1 = -(d_1 * i.r_0 + d_2) / (i.r_0 + i.r_1);
    let e_0 = d_1 - e_1;
    let (e_0, e_1) = (e_0 / i.r_0, e_1 / i.r_1);
    Factors { x: i.shrink, m: [-i.alpha * phi + e_0, e_1 - e_0, -e_1], z: 0.0 }
}
