use crate::Shape;

/// What can go wrong with memory and devices; names the operation, what was expected and what came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// A slice or buffer does not hold as many elements as the shape asks for.
    #[error("{operation}: the shape {shape} holds {expected} elements, but {got} came")]
    Length {
        /// Operation that was asked for.
        operation: &'static str,
        /// Shape that was asked for.
        shape: Shape,
        /// Elements of that shape.
        expected: usize,
        /// Elements that came.
        got: usize,
    },
    /// A shape has another number of dimensions or other sizes than the operation takes.
    #[error("{operation}: expected {expected}, got the shape {got}")]
    Shape {
        /// Operation that was asked for.
        operation: &'static str,
        /// What the operation takes, in words.
        expected: String,
        /// Shape that came.
        got: Shape,
    },
    /// The instruction set asked for is not one that this machine has.
    #[error("the instruction set `{name}` is not to be had here: {reason}")]
    Isa {
        /// Name that was asked for.
        name: String,
        /// Why not, with those that are.
        reason: String,
    },
    /// No precision has that name.
    #[error("there is no precision `{name}`; there are `strict`, `f32` and `bf16`")]
    Precision {
        /// Name that was asked for.
        name: String,
    },
    /// The number of threads is not one that can be had.
    #[error("{threads} threads cannot be had: {reason}")]
    Threads {
        /// Number that was asked for.
        threads: usize,
        /// Why not.
        reason: String,
    },
    /// A `.npy` file that cannot be read as the tensor that was asked for.
    #[error("not a NumPy array that can be read: {0}")]
    Npy(String),
    /// No GPU can be used; the reason in one line.
    #[error("no CUDA device: {0}")]
    NoCuda(String),
    /// The GPU or its driver refused something; says what was asked and by which name the driver calls the failure.
    #[error("CUDA: {what}: {code}")]
    Cuda {
        /// What was asked: the kernel with its launch, the copy with its size, the module.
        what: String,
        /// The driver's name for it, and what that means.
        code: String,
    },
    /// The GPU has no memory left.
    #[error(
        "CUDA: {asked} bytes were asked for, {free} of {total} are free, {held} are held: CUDA_ERROR_OUT_OF_MEMORY"
    )]
    CudaMemory {
        /// Bytes of the buffer.
        asked: usize,
        /// Bytes that the driver says are free.
        free: usize,
        /// Bytes of the GPU.
        total: usize,
        /// Bytes that this handle's buffers take.
        held: usize,
    },
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
