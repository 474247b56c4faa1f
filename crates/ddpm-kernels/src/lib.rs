//! **Arithmetic**: every fused operation of diffusion networks, with a CPU body and (where it exists) a CUDA kernel behind
//! one signature.
//!
//! | concept | where |
//! |---|---|
//! | all operations | [`Backend`] |
//! | an input that is normalised, activated, concatenated, enlarged while it is loaded | [`Operand`] |
//! | what happens to an output before it is stored | [`Epilogue`] |
//! | convolutions and dense layers | [`conv`] |
//! | softmax attention | [`attention`] |
//! | losses | [`loss`] |
//! | optimiser and EMA | [`adamw`] |
//! | noising, a step of a sampler | [`noise`], [`posterior`] |
//! | the CUDA kernels, embedded | [`ptx`] |
//! | sums over pixels and images, rows of tables | [`sums`] |

pub mod adamw;
pub mod attention;
mod backend;
pub mod conv;
mod cpu;
mod cuda;
mod error;
mod lanes;
pub mod loss;
pub mod noise;
mod operand;
pub mod posterior;
mod product;
pub mod ptx;
mod statistics;
pub mod sums;
#[cfg(test)]
mod testing;

pub use backend::Backend;
pub use error::KernelError;
pub use operand::{Dropout, Epilogue, Norm, NormParameters, Operand, Output, Parts, Pulled};
