//! The blocks of a U-Net: residual blocks, and the levels and the middle that are made of them.

mod down;
mod mid;
mod resample;
mod residual;
mod up;

pub use down::{Down, DownCache};
pub use mid::{Mid, MidCache};
pub use resample::{Downsample, Upsample};
pub use residual::{Residual, ResidualCache, ResidualInput, ResidualOptions, Temb};
pub use up::{Up, UpCache};
