//! Learning.
#![forbid(unsafe_code)]

pub mod diffusion;
pub mod ema;
pub mod named;
pub mod optimiser;
pub mod samplers;
