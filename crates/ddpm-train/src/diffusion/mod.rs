//! The diffusion process: how much noise each time step holds, how an image becomes noise, and what a step back looks like.
//!
//! Time steps are array indices `0..T`: the paper's `t` is ours plus one, and `alpha_bar[t]` is the product over `0..=t`.
//! Everything here is computed in `f64` and handed to kernels as `f32`: a schedule computed in `f32` errs by up to 5e-4
//! in differences such as 1 − ᾱ_t/ᾱ_{t−1}.

pub mod bound;
mod error;
pub mod forward;
mod loss_history;
pub mod objective;
pub mod posterior;
pub mod prediction;
pub mod schedule;
pub mod scheduler_config;
pub mod step_bound;
pub mod time_steps;

pub use error::DiffusionError;
pub use loss_history::{LossHistory, REMEMBERED};
pub use objective::{Objective, Weighting, Weights};
pub use posterior::{LogVariance, Posterior, Variance};
pub use prediction::{Level, Prediction};
pub use schedule::{BetaSchedule, Respaced, Schedule, ScheduleSettings};
pub use step_bound::StepBound;
pub use time_steps::TimeSteps;
