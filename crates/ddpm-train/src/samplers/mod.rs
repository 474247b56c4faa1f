//! Samplers: from noise to images.
//!
//! A sampler turns a schedule and options into a [`Plan`], a list of [`ReverseStep`]s, which is data: the time step
//! that the network is told and seven numbers that the fused posterior kernel takes. Running a plan is the same for all
//! of them.
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
//! assert_eq!((plan.steps[0].time_step, plan.steps[49].time_step), (980, 0));
//! # Ok(())
//! # }
//! ```

pub mod ddim;
pub mod ddpm;
mod run;
mod spacing;
mod step;

pub use run::{Images, Moment, latents};
pub use spacing::Spacing;
pub use step::ReverseStep;

use crate::diffusion::{DiffusionError, Prediction, Schedule, Variance};
use crate::named::UnknownName;
use crate::settings::{DiffusionSettings, Settings};

/// A sampler as users know it.
#[derive(Debug, Clone, Copy)]
pub struct Sampler {
    /// What it is called.
    pub name: &'static str,
    /// One line on what it is for.
    pub about: &'static str,
    /// Its steps for a schedule and options.
    pub plan: fn(&Schedule, &SamplerOptions) -> Result<Plan, DiffusionError>,
}

/// Every sampler, in the order in which help shows them.
pub const SAMPLERS: &[Sampler] = &[
    Sampler {
        name: "ddpm",
        about: "ancestral sampling, the paper's: noise at every step, best with many (Ho et al. 2020)",
        plan: ddpm::plan,
    },
    Sampler {
        name: "ddim",
        about: "implicit sampling: good from about 20 steps, deterministic at eta 0 (Song et al. 2021)",
        plan: ddim::plan,
    },
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

/// Where a DDIM step leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Previous {
    /// The next time step of the list: the steps join without gap or overlap.
    #[default]
    Listed,
    /// t − ⌊T/S⌋, as diffusers' `DDIMScheduler`: the same with `leading` spacing, but with `linspace`, and with
    /// `trailing` where S does not divide T, it misses the next listed time step. For models that bring diffusers'
    /// settings.
    FixedStride,
}

/// Everything that determines a [`Plan`] beside the schedule. A sampler ignores what does not concern it.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerOptions {
    /// What the network predicts.
    pub prediction: Prediction,
    /// Variance of an ancestral step (`ddpm`).
    pub variance: Variance,
    /// Bound of |x̂_0|, > 0; `None` leaves it alone.
    pub clip: Option<f64>,
    /// Which time steps are visited.
    pub spacing: Spacing,
    /// Shift of `leading` time steps.
    pub steps_offset: usize,
    /// S, 1..=T; `None` for all T.
    pub steps: Option<usize>,
    /// η, 0 to 1: the share of an ancestral step's noise (`ddim`).
    pub eta: f64,
    /// The last step goes to ᾱ = 1, the image itself; otherwise to ᾱ_0 (`ddim`).
    pub set_alpha_to_one: bool,
    /// Where a step leads to (`ddim`).
    pub previous: Previous,
    /// ε̂ belongs to the clipped x̂_0 (`ddim`).
    pub clipped_eps: bool,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            prediction: Prediction::default(),
            variance: Variance::default(),
            clip: Some(1.0),
            spacing: Spacing::default(),
            steps_offset: 0,
            steps: None,
            eta: 0.0,
            set_alpha_to_one: true,
            previous: Previous::default(),
            clipped_eps: false,
        }
    }
}

impl From<&Settings> for SamplerOptions {
    /// How a run's previews and its final pictures are sampled.
    fn from(settings: &Settings) -> Self {
        let Settings { diffusion, preview, .. } = settings;
        let steps = Some(preview.steps.min(diffusion.timesteps));
        Self { steps, eta: preview.eta, ..Self::from(diffusion) }
    }
}

impl From<&DiffusionSettings> for SamplerOptions {
    /// What a run's settings say of sampling; number and spacing of steps and η are for the caller to set.
    fn from(settings: &DiffusionSettings) -> Self {
        Self {
            prediction: settings.prediction,
            variance: settings.variance,
            clip: settings.clip.then_some(settings.clip_range),
            ..Self::default()
        }
    }
}

impl SamplerOptions {
    /// The time steps that these options visit, from noise to image.
    ///
    /// # Errors
    /// A number of steps or an offset that the schedule has no room for; η or clip out of range.
    pub fn time_steps(&self, schedule: &Schedule) -> Result<Vec<usize>, DiffusionError> {
        if !(0.0..=1.0).contains(&self.eta) {
            return Err(DiffusionError::Option { option: "eta", expected: "from 0 to 1", got: self.eta });
        }
        if let Some(got) = self.clip.filter(|&clip| !(clip > 0.0 && clip.is_finite())) {
            return Err(DiffusionError::Option { option: "clip", expected: "above 0", got });
        }
        let total = schedule.time_steps();
        self.spacing.time_steps(total, self.steps.unwrap_or(total), self.steps_offset)
    }
}

/// A sampler's steps, from noise to image.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In the order in which they are taken.
    pub steps: Vec<ReverseStep>,
}
