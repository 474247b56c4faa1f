//! What can be wrong with the settings of a diffusion process.

use crate::named::UnknownName;

/// Errors of schedules, samplers and scheduler configurations.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DiffusionError {
    /// A schedule of no steps, or of more than an index of the network can hold.
    #[error("noise schedule: expected 1 to {max} time steps, got {got}")]
    TimeStepCount {
        /// The largest number accepted.
        max: usize,
        /// The number asked for.
        got: usize,
    },
    /// A β outside (0, 1); the last one may be 1.
    #[error("noise schedule: beta[{time_step}] must lie in (0, 1) (the last may be 1), got {beta}")]
    BetaOutOfRange {
        /// Index of the step, 0..T.
        time_step: usize,
        /// Its β.
        beta: f64,
    },
    /// `trained_betas` of another length than the number of time steps.
    #[error("noise schedule: {expected} time steps are set, but {got} betas are given")]
    BetaCount {
        /// The number of time steps.
        expected: usize,
        /// The number of β.
        got: usize,
    },
    /// A subset of time steps that is empty, not ascending, or outside 0..T.
    #[error("respacing: expected time steps in ascending order within 0..{time_steps}, got {got} at place {place}")]
    Subset {
        /// T of the schedule.
        time_steps: usize,
        /// Which entry of the subset is wrong.
        place: usize,
        /// What stands there ("nothing" for an empty subset).
        got: String,
    },
    /// More sampling steps than time steps, or none.
    #[error("sampling: expected 1 to {time_steps} steps (the model's time steps), got {got}")]
    SamplingSteps {
        /// T of the schedule.
        time_steps: usize,
        /// The number asked for.
        got: usize,
    },
    /// `steps_offset` moves a step past the end of the schedule.
    #[error(
        "sampling: steps_offset {offset} with {steps} steps asks for time step {time_step}, but the model has 0..{time_steps}"
    )]
    StepsOffset {
        /// The offset.
        offset: usize,
        /// The number of sampling steps.
        steps: usize,
        /// The largest time step that results.
        time_step: usize,
        /// T of the schedule.
        time_steps: usize,
    },
    /// An option outside its range.
    #[error("sampling: {option} must be {expected}, got {got}")]
    Option {
        /// Its name.
        option: &'static str,
        /// Its range.
        expected: &'static str,
        /// What came.
        got: f64,
    },
    /// ε (or x_0) cannot be turned into x_0 (or ε) where one of the two has vanished from x_t.
    #[error(
        "sampling: the prediction `{prediction}` says nothing of x_0 at time step {time_step}, where alpha_bar is {alpha_bar:e}; \
         a schedule that ends in pure noise needs `v` or `x0`"
    )]
    Singular {
        /// The prediction's name.
        prediction: &'static str,
        /// The time step.
        time_step: f64,
        /// ᾱ there.
        alpha_bar: f64,
    },
    /// A name that is not in its list.
    #[error(transparent)]
    Name(#[from] UnknownName),
    /// A scheduler configuration that is not a JSON object.
    #[error("scheduler_config.json: {0}")]
    ConfigSyntax(String),
    /// A value in a scheduler configuration that has no counterpart here.
    #[error("scheduler_config.json: `{key}` is {value}; expected {expected}")]
    ConfigValue {
        /// The key.
        key: &'static str,
        /// Its value, as JSON.
        value: String,
        /// What would be accepted.
        expected: String,
    },
}
