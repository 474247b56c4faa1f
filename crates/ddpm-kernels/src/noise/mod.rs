//! The forward process in one step: `x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε` (Ho et al. 2020, eq. 4), which makes its own ε.
//!
//! The CUDA twin is `kernels/noise.cu` ([`crate::ptx::NOISE`]); the two agree to the bit.

pub(crate) mod cpu;
pub(crate) mod cuda;

pub use cpu::noise_image;
