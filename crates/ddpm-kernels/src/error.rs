use ddpm_tensor::{Shape, TensorError};

/// What can go wrong with an operation: its operands do not fit each other, or the device fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// An operand has another shape than the others ask for.
    #[error("{operation}: {operand} should be {expected}, but is {got}")]
    Shape {
        /// Operation that was asked for.
        operation: &'static str,
        /// Which operand.
        operand: &'static str,
        /// What fits the other operands, in words.
        expected: String,
        /// Shape that came.
        got: Shape,
    },
    /// A setting that the operation does not take.
    #[error("{operation}: {what}")]
    Setting {
        /// Operation that was asked for.
        operation: &'static str,
        /// What is wrong, with the value.
        what: String,
    },
    /// Memory or device failed.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// Fails with [`KernelError::Shape`] unless the shapes are equal.
pub(crate) fn expect(
    operation: &'static str,
    operand: &'static str,
    expected: impl Into<Shape>,
    got: Shape,
) -> Result<(), KernelError> {
    let expected = expected.into();
    if expected.nhwc() == got.nhwc() {
        Ok(())
    } else {
        Err(KernelError::Shape { operation, operand, expected: expected.to_string(), got })
    }
}
