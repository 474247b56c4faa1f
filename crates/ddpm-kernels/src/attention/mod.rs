//! Softmax attention with several heads (Vaswani et al. 2017, eq. 1), forward and backward; no P x P matrix is held.

pub(crate) mod cpu;
pub(crate) mod cuda;
