//! What can go wrong while learning: the errors of this crate's parts under one name.

use crate::checkpoint::CheckpointError;
use crate::data::DataError;
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
    /// A setting is unknown, out of its range or contradicts another.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
