use ddpm_kernels::KernelError;
use ddpm_tensor::TensorError;

use crate::config::ConfigError;
use crate::diffusers::DiffusersError;

/// What can go wrong with a network; names what was asked for, what was expected and what came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NnError {
    /// Options that contradict each other or the size of the images.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An input that does not fit the network.
    #[error("{operation}: expected {expected}, got {got}")]
    Input {
        /// What was asked for.
        operation: &'static str,
        /// What would fit, in words.
        expected: String,
        /// What came.
        got: String,
    },
    /// A name that the layout does not know.
    #[error("no parameter is called `{name}`; this layout holds {count}, from `{first}` on")]
    UnknownParameter {
        /// The name asked for.
        name: String,
        /// How many there are.
        count: usize,
        /// The first one's name.
        first: String,
    },
    /// Weights in diffusers' format that do not fit.
    #[error(transparent)]
    Diffusers(#[from] DiffusersError),
    /// An operation failed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Memory or device failed.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, NnError>;

/// An [`NnError::Input`] unless `ok`.
pub(crate) fn expect(
    ok: bool,
    operation: &'static str,
    expected: impl FnOnce() -> String,
    got: impl FnOnce() -> String,
) -> Result<()> {
    if ok { Ok(()) } else { Err(NnError::Input { operation, expected: expected(), got: got() }) }
}
