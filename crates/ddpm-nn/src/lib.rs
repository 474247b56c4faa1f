//! **Calculus**: the U-Net of denoising diffusion models, its layers and blocks, each with a backward pass written by hand,
//! and the mapping between its parameters and diffusers' format. Usable alone: it knows no optimiser, no data and no
//! noise schedule, and opens no file.
//!
//! | concept | where |
//! |---|---|
//! | the options of a network, under diffusers' names | [`config::UNetConfig`] |
//! | the network | [`UNet`] |
//! | names, shapes and places of parameters | [`layout::Layout`] |
//! | the numbers: parameters, gradients, moments, averages | [`Parameters`] |
//! | how they start | [`init`] |
//! | what a forward pass is for | [`Mode`] |
//! | a small classifier, whose features tell images apart | [`classifier`] |
//! | layers and blocks, for networks of one's own | [`layers`], [`blocks`] |
//! | diffusers' `config.json` and safetensors | [`diffusers`] |
//!
//! A model is a description; its numbers live beside it. So one [`UNet`] serves its weights, their average, every
//! device and both number types, and everything that treats all numbers alike is one pass over a flat buffer. `forward`
//! returns its output and a cache, `backward` uses the cache up and *adds* to the gradients it is given.
//!
//! ```
//! use ddpm_nn::{Mode, Parameters, UNet, config::UNetConfig};
//! use ddpm_tensor::{Cpu, Tensor};
//!
//! # fn main() -> Result<(), ddpm_nn::NnError> {
//! let unet = UNet::new(&UNetConfig::from_json(
//!     r#"{"in_channels": 1, "out_channels": 1, "block_out_channels": [8], "norm_num_groups": 4,
//!         "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}"#,
//! )?)?;
//! let cpu = Cpu::<f32>::new(Default::default())?;
//! let parameters = Parameters::from_host(&cpu, unet.layout(), &unet.initial(42))?;
//! let mut grads = Parameters::zeros(&cpu, unet.layout())?;
//!
//! let x = Tensor::from_slice(&cpu, [1, 2, 2, 1], &[0.5, -0.5, 1.0, 0.0])?;
//! let (y, cache) = unet.forward(&cpu, &parameters, x.view(), &[10.0], None, Mode::Differentiate)?;
//! if let Some(cache) = cache {
//!     // the gradient of Σ y²/2 is y itself
//!     unet.backward(&cpu, &parameters, cache, y.view(), Some(&mut grads), false)?;
//! }
//! assert!(grads.read(&cpu, "conv_out.bias")?[0] != 0.0);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod blocks;
pub mod classifier;
pub mod config;
pub mod diffusers;
mod error;
pub mod init;
pub mod layers;
pub mod layout;
mod mode;
mod parameters;
mod unet;

pub use config::UNetConfig;
pub use error::{NnError, Result};
pub use layers::Classes;
pub use layout::Layout;
pub use mode::Mode;
pub use parameters::Parameters;
pub use unet::{UNet, UNetCache};
