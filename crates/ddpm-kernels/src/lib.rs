//! **Arithmetic**: every fused operation of diffusion networks, with a CPU body and (where it exists) a CUDA kernel behind
//! one signature.
//!
//! | concept | where |
//! |---|---|
//! | all operations | [`Backend`] |
//! | an input that is normalised, activated, concatenated, enlarged while it is loaded | [`Operand`] |
//! | what happens to an output before it is stored | [`Epilogue`] |
//! | convolutions and dense layers | [`conv`] |
//! | losses | [`loss`] |
//! | optimiser and EMA | [`adamw`] |

pub mod adamw;
mod backend;
pub mod conv;
mod error;
pub mod loss;
mod operand;
pub mod posterior;

pub use backend::Backend;
pub use error::KernelError;
pub use operand::{Dropout, Epilogue, Norm, Operand, Output, Parts, Pulled};
