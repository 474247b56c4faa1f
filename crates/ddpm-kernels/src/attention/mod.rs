//! Softmax attention with any number of heads.

pub(crate) mod cpu;
