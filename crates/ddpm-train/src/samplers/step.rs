//! One call of the network in a sampler, as numbers: what it sees, and what follows from its answer.

use ddpm_kernels::posterior::StepCoefficients;

use super::SamplerOptions;
use super::bound::Bound;
use crate::diffusion::prediction::Combination;
use crate::diffusion::{DiffusionError, Level, LogVariance, Schedule};

/// `x` · x + `x_0` · x̂_0 + `output` · output: a value made of one call's three tensors.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Mix {
    /// Factor of the x that the call began with.
    pub x: f64,
    /// Factor of the x̂_0 that the network saw in it, bounded.
    pub x_0: f64,
    /// Factor of the network's output.
    pub output: f64,
}

impl Mix {
    /// x̂_0 itself.
    pub const X_0: Self = Self { x: 0.0, x_0: 1.0, output: 0.0 };

    /// `factor` times this.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self { x: factor * self.x, x_0: factor * self.x_0, output: factor * self.output }
    }

    /// This and `other`.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { x: self.x + other.x, x_0: self.x_0 + other.x_0, output: self.output + other.output }
    }
}

/// A new x: a [`Mix`] of this call, and of earlier calls their values and the x that they began with.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Update {
    /// Of this call.
    pub now: Mix,
    /// (how many calls ago, factor) of earlier calls' values.
    pub values: Vec<(usize, f64)>,
    /// (how many calls ago, factor) of an earlier call's x.
    pub base: Option<(usize, f64)>,
}

impl Update {
    /// Whether it uses the value of the call so many calls ago.
    pub(super) fn uses_value(&self, ago: usize) -> bool {
        self.values.iter().any(|&(back, _)| back == ago)
    }

    /// Whether it uses the x of the call so many calls ago.
    pub(super) fn uses_base(&self, ago: usize) -> bool {
        self.base.is_some_and(|(back, _)| back == ago)
    }
}

/// One call of the network and the step that follows it; all of it is linear but the bound of x̂_0.
///
/// 1. output = network(`input` · x, `time_step`)
/// 2. x̂_0 = bound(`predict.x_t` · x + `predict.output` · output); the call's *value*, which later calls may use, is the
///    mix `value`.
/// 3. x ← `correct`, where there is one (predictor-corrector samplers).
/// 4. x ← `advance` + `sigma` · z.
#[derive(Debug, Clone, PartialEq)]
pub struct ReverseStep {
    /// t, in 0..T and perhaps between two whole numbers: what the network is told.
    pub time_step: f64,
    /// ᾱ of what the network sees.
    pub alpha_bar: f64,
    /// The same with that of the time step before, on which predictions depend.
    pub level: Level,
    /// What x is multiplied with before the network sees it: 1 where x is the x_t of the forward process, 1/√(1+s²) where it
    /// is x_0 + s ε.
    pub input: f64,
    /// x̂_0 before it is bounded.
    pub predict: Combination,
    /// The bound of x̂_0.
    pub bound: Bound,
    /// What later calls use of this one.
    pub value: Mix,
    /// A better x for this call, made before the step.
    pub correct: Option<Update>,
    /// The step.
    pub advance: Update,
    /// Standard deviation of the noise in the new x; 0 for none, and then none is drawn.
    pub sigma: f64,
    /// ln of the variance of the noise where the network says it, in the second half of its channels; `sigma` is then 0.
    pub log_variance: Option<LogVariance>,
    /// Whether the network is shown the x̂_0 of the call before, as so many channels more: zeros in the first call.
    pub self_conditioned: bool,
}

impl ReverseStep {
    /// The first half of a step whose x is the forward process's x_t: what the network says of x_0 at `alpha_bar`. It leads
    /// nowhere yet.
    ///
    /// # Errors
    /// A prediction that says nothing of x_0 at this ᾱ.
    pub(crate) fn of_x_t(
        schedule: &Schedule,
        options: &SamplerOptions,
        time_step: f64,
        alpha_bar: f64,
    ) -> Result<Self, DiffusionError> {
        let level = Level::at(schedule, time_step, alpha_bar);
        options.prediction.check(time_step, level)?;
        Ok(Self {
            time_step,
            alpha_bar,
            level,
            input: 1.0,
            predict: options.prediction.x_0(level),
            bound: options.bound(),
            value: Mix::X_0,
            correct: None,
            advance: Update::default(),
            sigma: 0.0,
            log_variance: None,
            self_conditioned: options.self_conditioning,
        })
    }

    /// The same where x is x_0 + s ε, as Karras et al. 2022 have it: x_t/√ᾱ with ᾱ = 1/(1 + s²).
    ///
    /// # Errors
    /// A prediction that says nothing of x_0 at this s.
    pub(crate) fn of_noise(
        schedule: &Schedule,
        options: &SamplerOptions,
        time_step: f64,
        s: f64,
    ) -> Result<Self, DiffusionError> {
        let mut step = Self::of_x_t(schedule, options, time_step, 1.0 / (1.0 + s * s))?;
        step.input = step.alpha_bar.sqrt();
        step.predict.x_t *= step.input;
        Ok(step)
    }

    /// ε̂ of this call, which in x_0 + s ε is also the slope dx/ds: what was predicted, or, where x̂_0 is bounded, the ε that
    /// belongs to the bounded one.
    pub(crate) fn eps(&self, options: &SamplerOptions) -> Mix {
        if options.bound() == Bound::None {
            let Combination { x_t, output } = options.prediction.eps(self.level);
            Mix { x: x_t * self.input, x_0: 0.0, output }
        } else {
            let noise = (1.0 - self.alpha_bar).sqrt();
            Mix { x: self.input / noise, x_0: -self.alpha_bar.sqrt() / noise, output: 0.0 }
        }
    }

    /// This call with a step that needs no other call.
    pub(crate) fn to(self, now: Mix) -> Self {
        Self { advance: Update { now, ..Update::default() }, ..self }
    }

    /// x̂_0 for one element, in `f64`.
    pub fn x_0(&self, x: f64, output: f64) -> f64 {
        self.bound.of(self.predict.of(x, output))
    }

    /// The new x for one element, in `f64`: the definition of a step that uses no other call, for tests and for reading.
    pub fn apply(&self, x: f64, output: f64, z: f64) -> f64 {
        let Mix { x: from_x, x_0: from_x_0, output: from_output } = self.advance.now;
        from_x_0 * self.x_0(x, output) + from_x * x + from_output * output + self.sigma * z
    }

    /// The factors as the kernel takes them, where the step uses no other call.
    pub fn coefficients(&self) -> StepCoefficients {
        let Mix { x, x_0, output } = self.advance.now;
        StepCoefficients {
            predict_x: self.predict.x_t as f32,
            predict_output: self.predict.output as f32,
            clip: self.bound.clip() as f32,
            from_x_0: x_0 as f32,
            from_x: x as f32,
            from_output: output as f32,
            sigma: self.sigma as f32,
        }
    }
}
