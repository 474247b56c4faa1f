//! What can go wrong while learning: the errors of this crate's parts under one name.

use std::fmt;
use std::path::PathBuf;

use ddpm_kernels::KernelError;
use ddpm_nn::NnError;
use ddpm_tensor::TensorError;

use crate::checkpoint::CheckpointError;
use crate::data::DataError;
use crate::diffusion::DiffusionError;
use crate::eval::EvalError;
use crate::run::RunError;
use crate::settings::SettingsError;

/// Any error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Images cannot be found, read or served.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A run's directory is not as it must be.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A score cannot be computed.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// Schedules, predictions or samplers were asked for something that does not exist.
    #[error(transparent)]
    Diffusion(#[from] DiffusionError),
    /// A network and its inputs or options do not fit each other.
    #[error(transparent)]
    Network(#[from] NnError),
    /// An operation failed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Memory or device failed.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// Training ran into infinity. The weights are as they were before this step.
    #[error("the {what} of step {step} is {value}{}; the weights were not updated", first_in(.parameter.as_deref()))]
    NotFinite {
        /// The step that was not done, counted from 1.
        step: u64,
        /// Loss or gradient.
        what: NotFinite,
        /// Infinite or not a number.
        value: f64,
        /// The first parameter that is not finite, or whose gradient is not.
        parameter: Option<String>,
    },
    /// A run was to be taken up with other settings or data than it was begun with.
    #[error("{} cannot be resumed: {what}", checkpoint.display())]
    OtherRun {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// What is different.
        what: String,
    },
    /// A setting is unknown, out of its range or contradicts another.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// What became infinite or not a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFinite {
    /// The loss of a batch.
    Loss,
    /// The global norm of the gradient.
    Gradient,
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loss => "loss",
            Self::Gradient => "gradient's norm",
        })
    }
}

fn first_in(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!(" (first in `{name}`)"))
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
