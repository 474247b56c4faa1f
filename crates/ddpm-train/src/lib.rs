//! Learning.
#![forbid(unsafe_code)]

pub mod channels;
pub mod checkpoint;
pub mod data;
pub mod diffusion;
pub mod ema;
pub mod error;
pub mod eval;
pub mod memory;
pub mod model;
pub mod named;
pub mod optimiser;
pub mod presets;
pub mod run;
pub mod samplers;
pub mod settings;
pub mod trainer;

pub use error::{Error, Result};
