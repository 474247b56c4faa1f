//! One step of the reverse process, shared by the samplers: predict x_0, clip it, mix, add noise.
//!
//! ```text
//! x̂_0 = clip(predict_x · x + predict_output · output)
//! x'  = from_x_0 · x̂_0 + from_x · x + from_output · output + sigma · z
//! ```
//!
//! With `predict` from Ho et al. 2020, eq. 9 solved for x_0 and `from` from eq. 7 this is ancestral sampling
//! (algorithm 2); with the coefficients of Song et al. 2021, eq. 12 it is DDIM. Which they are is the sampler's
//! business. The CUDA twin is `kernels/posterior.cu` ([`crate::ptx::POSTERIOR`]); the two agree to the bit.

pub(crate) mod cpu;
pub(crate) mod cuda;

pub use cpu::posterior_image;

/// What a step of the reverse process multiplies with; the same for every element of a batch.
///
/// `kernels/posterior.cu` declares the same struct and takes it by value.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct StepCoefficients {
    /// Of `x` in x̂_0; 1/√ᾱ_t for a network that predicts ε.
    pub predict_x: f32,
    /// Of the network's output in x̂_0; −√(1−ᾱ_t)/√ᾱ_t for a network that predicts ε.
    pub predict_output: f32,
    /// x̂_0 is kept within ±clip; [`f32::INFINITY`] for no bound.
    pub clip: f32,
    /// Of x̂_0 in the next x.
    pub from_x_0: f32,
    /// Of `x` in the next x.
    pub from_x: f32,
    /// Of the network's output in the next x.
    pub from_output: f32,
    /// Standard deviation of the noise added; with 0 none is made.
    pub sigma: f32,
}
