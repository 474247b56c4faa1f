//! Convolutions as products of f32 or f64 numbers: the tiles read the operand beside its zeros directly, tap by tap, so that
//! nothing is lowered to a matrix.

pub(super) mod forward;
mod input_grad;
pub(super) mod pack;
pub(crate) mod tile;
mod weight_grad;

pub(super) use forward::conv;
pub(super) use input_grad::input_grad;
pub(super) use weight_grad::weight_grad;
