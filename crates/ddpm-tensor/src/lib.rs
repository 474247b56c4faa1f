//! **Memory**: dense, row-major tensors on a device, and what is known about the device itself.
//!
//! | concept | type |
//! |---|---|
//! | sizes of a tensor, images are `[N, H, W, C]` | [`Shape`] |
//! | a number type, `f32` or (for gradient checks) `f64` | [`Element`] |
//! | a device that holds buffers | [`Device`], [`Cpu`], [`Cuda`] |
//! | numbers that do not change for a while | [`Frozen`] |
//! | numbers on a device | [`Tensor`], borrowed [`View`] and [`ViewMut`] |
//! | instruction set and precision, chosen once | [`Isa`], [`Precision`] |
//! | random numbers that have an address instead of a history | [`random::Address`] |
//! | is there a GPU, and if not, why | [`cuda::probe`] |
//!
//! ```
//! use ddpm_tensor::{Cpu, Tensor};
//! let cpu = Cpu::<f32>::new(Default::default())?;
//! let x = Tensor::from_slice(&cpu, [2, 2], &[1.0, 2.0, 3.0, 4.0])?;
//! assert_eq!(x.array()[[1, 0]], 3.0); // an ndarray view over the same memory
//! # Ok::<(), ddpm_tensor::TensorError>(())
//! ```

pub mod cpu;
pub mod cuda;
mod device;
mod element;
mod error;
pub mod math;
mod npy;
pub mod random;
mod shape;
mod tensor;

pub use cpu::{Cpu, CpuOptions, isa::Isa};
pub use cuda::Cuda;
pub use device::{Device, Frozen, Precision};
pub use element::Element;
pub use error::TensorError;
pub use npy::{read_npy, write_npy};
pub use shape::Shape;
pub use tensor::{Tensor, View, ViewMut};
