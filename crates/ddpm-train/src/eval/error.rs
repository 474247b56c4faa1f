//! What can go wrong while measuring.

/// Errors of scores and of the features they are made of.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// Too few images, features of another width, or the like.
    #[error("{operation}: expected {expected}, got {got}")]
    Input {
        /// What was asked for.
        operation: &'static str,
        /// What would fit.
        expected: String,
        /// What came.
        got: String,
    },
    /// A file of statistics that cannot be read.
    #[error("reference statistics: expected {expected}, got {got}")]
    Statistics {
        /// What would be read.
        expected: String,
        /// What is there.
        got: String,
    },
    /// A file of weights that is not the feature network's.
    #[error("feature network: {0}")]
    Weights(String),
    /// A decomposition that did not come to an end.
    #[error("{0}: the decomposition did not converge; are the features finite?")]
    NotConverged(&'static str),
}

/// An [`EvalError::Input`] unless `ok`.
pub(super) fn expect(
    ok: bool,
    operation: &'static str,
    expected: impl FnOnce() -> String,
    got: impl FnOnce() -> String,
) -> Result<(), EvalError> {
    if ok { Ok(()) } else { Err(EvalError::Input { operation, expected: expected(), got: got() }) }
}
