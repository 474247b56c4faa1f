//! One reverse step of a sampler, fused: predict x̂_0, clip it, step, add noise.

/// Coefficients of one reverse step, shared by DDPM (Ho et al. 2020, eq. 7 and 11) and DDIM (Song et al. 2021, eq. 12):
///
/// `x̂_0 = clip(predict_output·output + predict_x·x)`, then
/// `x' = from_x_0·x̂_0 + from_output·output + from_x·x + sigma·z`.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct StepCoefficients {
    /// Share of x in x̂_0.
    pub predict_x: f32,
    /// Share of the network's output in x̂_0.
    pub predict_output: f32,
    /// x̂_0 is clipped to ±clip; infinity for no clipping.
    pub clip: f32,
    /// Share of x̂_0 in the next x.
    pub from_x_0: f32,
    /// Share of x in the next x.
    pub from_x: f32,
    /// Share of the network's output in the next x.
    pub from_output: f32,
    /// Standard deviation of the added noise; 0 for none.
    pub sigma: f32,
}
