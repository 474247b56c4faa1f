//! Samplers: from noise to images.
//!
//! A sampler turns a schedule and options into a [`Plan`], a list of [`ReverseStep`]s, which is data: the time step
//! that the network is told and the factors of what it says, of x and of earlier calls. Running a plan is the same for all
//! of them ([`Plan::run`]), and the fused posterior kernel does the most of it.
//!
//! | file | sampler |
//! |---|---|
//! | `ddpm` | ancestral sampling |
//! | `ddim`, `invert` | implicit sampling, and its way back |
//! | `pndm` | pseudo linear multistep |
//! | `dpm_2m`, `dpm_3m`, `dpm_sde` (with `dpm`) | DPM-Solver++ |
//! | `unipc` | UniPC |
//! | `euler`, `euler_ancestral`, `heun`, `lms` | over noise levels |
//!
//! `guidance` mixes what the network says with and without a class, or what it and a weaker one say, `inpaint` fills a part of an image.
//!
//! `spacing` and `grid` say which time steps and noise levels are visited, `bound` where x̂_0 is cut, `step` what a step is
//! and `run` how it is taken.
//!
//! ```
//! use ddpm_train::diffusion::ScheduleSettings;
//! use ddpm_train::samplers::{self, SamplerOptions};
//!
//! # fn main() -> Result<(), ddpm_train::diffusion::DiffusionError> {
//! let schedule = ScheduleSettings::default().build()?;
//! let options = SamplerOptions { steps: Some(50), ..SamplerOptions::default() };
//! let plan = (samplers::find("ddim")?.plan)(&schedule, &options)?;
//! assert_eq!(plan.steps.len(), 50);
//! assert_eq!((plan.steps[0].time_step, plan.steps[49].time_step), (980.0, 0.0));
//! # Ok(())
//! # }
//! ```

mod bound;
pub mod ddim;
pub mod ddpm;
mod dpm;
pub mod dpm_2m;
pub mod dpm_3m;
pub mod dpm_sde;
pub mod euler;
pub mod euler_ancestral;
mod grid;
mod guidance;
pub mod heun;
mod inpaint;
pub mod invert;
pub mod lms;
mod options;
pub mod pndm;
mod run;
mod spacing;
mod step;
pub mod unipc;

pub use bound::{Bound, Threshold};
pub use grid::{FinalSigma, Levels};
pub use guidance::{Asked, Away, Guidance, guided_output};
pub use inpaint::Inpainting;
pub use options::{Previous, SamplerOptions, SolverType};
pub use run::{Images, Moment, Run, latents};
pub use spacing::Spacing;
pub use step::{Mix, ReverseStep, Update};

use crate::diffusion::{DiffusionError, Schedule};
use crate::named::UnknownName;

/// A sampler as users know it.
#[derive(Debug, Clone, Copy)]
pub struct Sampler {
    /// What it is called.
    pub name: &'static str,
    /// One line on what it is for.
    pub about: &'static str,
    /// Which time steps it visits where nobody says.
    pub spacing: Spacing,
    /// Whether it takes [`Levels`] other than those of time steps.
    pub takes_levels: bool,
    /// Its steps for a schedule and options.
    pub plan: fn(&Schedule, &SamplerOptions) -> Result<Plan, DiffusionError>,
}

/// A row of [`SAMPLERS`] over time steps.
const fn over_time(
    name: &'static str,
    plan: fn(&Schedule, &SamplerOptions) -> Result<Plan, DiffusionError>,
    about: &'static str,
) -> Sampler {
    Sampler { name, about, spacing: Spacing::Leading, takes_levels: false, plan }
}

/// A row of [`SAMPLERS`] over noise levels.
const fn over_levels(
    name: &'static str,
    plan: fn(&Schedule, &SamplerOptions) -> Result<Plan, DiffusionError>,
    about: &'static str,
) -> Sampler {
    Sampler { name, about, spacing: Spacing::Linspace, takes_levels: true, plan }
}

/// Every sampler, in the order in which help shows them.
pub const SAMPLERS: &[Sampler] = &[
    over_time("ddpm", ddpm::plan, "ancestral, the paper's: noise at every step, best with many (Ho et al. 2020)"),
    over_time("ddim", ddim::plan, "implicit: good from about 20 steps, deterministic at eta 0 (Song et al. 2021)"),
    over_time("pndm", pndm::plan, "pseudo linear multistep, deterministic (Liu et al. 2022)"),
    over_levels("dpm++2m", dpm_2m::plan, "DPM-Solver++, second order: good from about 15 steps (Lu et al. 2022)"),
    over_levels("dpm++3m", dpm_3m::plan, "DPM-Solver++, third order (Lu et al. 2022)"),
    over_levels("dpm++sde", dpm_sde::plan, "DPM-Solver++ with noise, second order (Lu et al. 2022)"),
    over_levels("euler", euler::plan, "Euler's method over noise levels (Karras et al. 2022)"),
    over_levels("euler-a", euler_ancestral::plan, "Euler's method with a posterior's noise at every step"),
    over_levels("heun", heun::plan, "Heun's method: two calls a step, with churn if asked for (Karras et al. 2022)"),
    over_levels("unipc", unipc::plan, "predictor and corrector: good from about 10 steps (Zhao et al. 2023)"),
    over_levels("lms", lms::plan, "linear multistep over noise levels, fourth order"),
];

/// The sampler of this name.
///
/// # Errors
/// An unknown name; the message says which there are.
pub fn find(name: &str) -> Result<&'static Sampler, UnknownName> {
    SAMPLERS.iter().find(|sampler| sampler.name == name).ok_or_else(|| UnknownName {
        what: "sampler",
        got: name.to_owned(),
        known: SAMPLERS.iter().map(|sampler| sampler.name).collect(),
    })
}

/// A sampler's steps, from noise to image.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The standard deviation of what the first step takes.
    pub start: f64,
    /// In the order in which they are taken.
    pub steps: Vec<ReverseStep>,
}

impl Plan {
    /// Whether no step uses an earlier call, so that a run may go back and forth.
    pub fn forgets(&self) -> bool {
        let alone = |update: &Update| update.values.is_empty() && update.base.is_none();
        self.steps.iter().all(|step| step.correct.is_none() && alone(&step.advance))
    }

    fn new(
        start: f64,
        steps: impl Iterator<Item = Result<ReverseStep, DiffusionError>>,
    ) -> Result<Self, DiffusionError> {
        Ok(Self { start, steps: steps.collect::<Result<_, _>>()? })
    }
}
