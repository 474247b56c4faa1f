//! What a sampler can be told.

use super::bound::{Bound, Threshold};
use super::grid::{FinalSigma, Levels};
use super::spacing::Spacing;
use crate::diffusion::{DiffusionError, Prediction, Schedule, Variance};
use crate::named::named_enum;
use crate::settings::{DiffusionSettings, Settings};

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

named_enum! {
    /// Variants of second-order solvers. A sampler that has none of the name takes its own default.
    #[derive(Default)]
    #[non_exhaustive]
    SolverType: "solver type" {
        /// The slope at the middle (`dpm++2m`, `dpm++sde`).
        #[default]
        Midpoint = "midpoint",
        /// The slopes' mean (`dpm++2m`, `dpm++sde`).
        Heun = "heun",
        /// B(h) = h (`unipc`).
        Bh1 = "bh1",
        /// B(h) = e^h − 1 (`unipc`, its default).
        Bh2 = "bh2",
    }
}

/// Everything that determines a [`Plan`](super::Plan) beside the schedule. A sampler ignores what does not concern it.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerOptions {
    /// What the network predicts.
    pub prediction: Prediction,
    /// Variance of an ancestral step (`ddpm`). A learned one means that the network's output has twice the channels of x.
    pub variance: Variance,
    /// v of [`Variance::Blend`].
    pub variance_blend: f64,
    /// The network is shown the x̂_0 of the call before (Chen et al. 2023, "Analog Bits", section 2.3).
    pub self_conditioning: bool,
    /// Bound of |x̂_0|, > 0; `None` leaves it alone.
    pub clip: Option<f64>,
    /// A bound of |x̂_0| that follows the image, in place of `clip`.
    pub threshold: Option<Threshold>,
    /// Which time steps are visited; `None` for the sampler's own.
    pub spacing: Option<Spacing>,
    /// Which noise levels are visited (samplers over noise levels).
    pub levels: Levels,
    /// The last noise level (`euler`, `dpm++…`, `unipc`).
    pub final_sigma: FinalSigma,
    /// Time steps of `levels` are cut to whole numbers where they would be rounded (`dpm++…`).
    pub floor_times: bool,
    /// Shift of `leading` time steps.
    pub steps_offset: usize,
    /// S, 1..=T; `None` for all T.
    pub steps: Option<usize>,
    /// How many of the S steps are left out at the begin, below S: for images that are not all noise.
    pub skip: usize,
    /// η, 0 to 1: the share of an ancestral step's noise (`ddim`).
    pub eta: f64,
    /// The last step goes to ᾱ = 1, the image itself; otherwise to ᾱ_0 (`ddim`).
    pub set_alpha_to_one: bool,
    /// Where a step leads to (`ddim`).
    pub previous: Previous,
    /// ε̂ belongs to the clipped x̂_0 (`ddim`).
    pub clipped_eps: bool,
    /// Only the multistep formula, without a Runge-Kutta start (`pndm`).
    pub skip_prk_steps: bool,
    /// The highest order, at least 1 (`unipc`, `lms`; 1 in `dpm++…`); `None` for the sampler's own.
    pub order: Option<usize>,
    /// Which of a solver's variants (`dpm++2m`, `dpm++sde`, `unipc`).
    pub solver_type: SolverType,
    /// Short runs end with lower orders (`dpm++…`, `unipc`).
    pub lower_order_final: bool,
    /// The last step is of first order (`dpm++…`).
    pub euler_at_final: bool,
    /// Steps that are not corrected (`unipc`).
    pub disable_corrector: Vec<usize>,
    /// The equation is the stochastic one: a model's settings ask for `dpm++sde`.
    pub stochastic: bool,
    /// Noise that is added and removed again over the whole run, at least 0 (`heun`; S_churn of Karras et al. 2022).
    pub churn: f64,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            prediction: Prediction::default(),
            variance: Variance::default(),
            variance_blend: 0.0,
            self_conditioning: false,
            clip: Some(1.0),
            threshold: None,
            spacing: None,
            levels: Levels::default(),
            final_sigma: FinalSigma::default(),
            floor_times: false,
            steps_offset: 0,
            steps: None,
            skip: 0,
            eta: 0.0,
            set_alpha_to_one: true,
            previous: Previous::default(),
            clipped_eps: false,
            skip_prk_steps: true,
            order: None,
            solver_type: SolverType::default(),
            lower_order_final: true,
            euler_at_final: false,
            disable_corrector: Vec::new(),
            stochastic: false,
            churn: 0.0,
        }
    }
}

impl From<&Settings> for SamplerOptions {
    /// How a run's previews and its final pictures are sampled.
    fn from(settings: &Settings) -> Self {
        let Settings { diffusion, preview, .. } = settings;
        let steps = Some(preview.steps.min(diffusion.timesteps));
        Self { steps, eta: preview.eta, levels: preview.levels, ..Self::from(diffusion) }
    }
}

impl From<&DiffusionSettings> for SamplerOptions {
    /// What a run's settings say of sampling; number and spacing of steps and η are for the caller to set.
    fn from(settings: &DiffusionSettings) -> Self {
        Self {
            prediction: settings.prediction,
            variance: settings.variance,
            variance_blend: settings.variance_blend,
            self_conditioning: settings.self_conditioning,
            clip: settings.clip.then_some(settings.clip_range),
            ..Self::default()
        }
    }
}

impl SamplerOptions {
    /// The time steps that these options visit, from noise to image; `default` where they do not say how they are spaced.
    ///
    /// # Errors
    /// A number of steps or an offset that the schedule has no room for; an option out of its range.
    pub fn time_steps(&self, schedule: &Schedule, default: Spacing) -> Result<Vec<usize>, DiffusionError> {
        self.check()?;
        let mut times = self.all_time_steps(schedule, self.spacing.unwrap_or(default))?;
        times.drain(..self.skipped(times.len())?);
        Ok(times)
    }

    /// The same with those that are skipped.
    pub(super) fn all_time_steps(&self, schedule: &Schedule, spacing: Spacing) -> Result<Vec<usize>, DiffusionError> {
        spacing.time_steps(schedule.time_steps(), self.count(schedule), self.steps_offset)
    }

    /// S.
    pub(super) fn count(&self, schedule: &Schedule) -> usize {
        self.steps.unwrap_or(schedule.time_steps())
    }

    /// How many of so many steps are left out: not all.
    pub(super) fn skipped(&self, steps: usize) -> Result<usize, DiffusionError> {
        if self.skip < steps {
            return Ok(self.skip);
        }
        Err(DiffusionError::Option {
            option: "steps left out",
            expected: "fewer than there are",
            got: self.skip as f64,
        })
    }

    /// The order of a solver that takes 1 to `highest`.
    pub(super) fn order_up_to(&self, default: usize, highest: usize) -> Result<usize, DiffusionError> {
        match self.order {
            None => Ok(default),
            Some(order) if (1..=highest).contains(&order) => Ok(order),
            Some(order) => {
                let expected = if highest == 3 { "1 to 3" } else { "1 to 4" };
                Err(DiffusionError::Option { option: "order", expected, got: order as f64 })
            }
        }
    }

    /// Where x̂_0 is cut.
    pub fn bound(&self) -> Bound {
        match (self.threshold, self.clip) {
            (Some(threshold), _) => Bound::Dynamic(threshold),
            (None, Some(clip)) => Bound::Clip(clip),
            (None, None) => Bound::None,
        }
    }

    /// Whether every option is in its range.
    pub(super) fn check(&self) -> Result<(), DiffusionError> {
        if !(0.0..=1.0).contains(&self.eta) {
            return Err(DiffusionError::Option { option: "eta", expected: "from 0 to 1", got: self.eta });
        }
        if let Some(got) = self.clip.filter(|&clip| !(clip > 0.0 && clip.is_finite())) {
            return Err(DiffusionError::Option { option: "clip", expected: "above 0", got });
        }
        if !(self.churn >= 0.0 && self.churn.is_finite()) {
            return Err(DiffusionError::Option { option: "churn", expected: "0 or more", got: self.churn });
        }
        self.threshold.map_or(Ok(()), Threshold::check)
    }
}
