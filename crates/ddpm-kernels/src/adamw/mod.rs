//! AdamW and the exponential moving average of parameters, in one pass over flat buffers.

pub(crate) mod cpu;
pub(crate) mod cuda;

/// What one step of the optimiser needs beside the buffers:
/// `g = clip·grad`, `m = β₁m + (1−β₁)g`, `v = β₂v + (1−β₂)g²`,
/// `p = p − lr·weight_decay·p − lr·(m/correction_1) / (√(v/correction_2) + eps)`, `ema = decay·ema + (1−decay)·p`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Learning rate of this step.
    pub lr: f64,
    /// β₁.
    pub beta_1: f64,
    /// β₂.
    pub beta_2: f64,
    /// Added to the root, PyTorch's 1e-8.
    pub eps: f64,
    /// Decoupled weight decay (0 makes it Adam).
    pub weight_decay: f64,
    /// `1 − β₁^k` at the k-th step, k from 1.
    pub correction_1: f64,
    /// `1 − β₂^k`.
    pub correction_2: f64,
    /// Factor that clips the gradients to a global norm, at most 1.
    pub clip: f64,
    /// EMA's decay at this step.
    pub ema_decay: f64,
}
