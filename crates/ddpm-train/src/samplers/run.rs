//! Running a plan on a device.

use ddpm_kernels::{Backend, KernelError};
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Shape, Tensor};

use super::Plan;

/// Which images of which seed: image `first + n` stands at place n of the batch.
///
/// All noise is addressed by the image's own index, so that an image of a seed is the same in every batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Images {
    /// The seed.
    pub seed: u64,
    /// Index of the first image.
    pub first: u64,
}

impl Images {
    fn address(self, purpose: Purpose, step: u64) -> Address {
        Address { seed: self.seed, purpose, step, sample: self.first }
    }
}

/// What samplers start from: standard normal x_T, `shape` = `[N, H, W, C]`.
///
/// # Errors
/// When the device fails.
pub fn latents<B: Backend>(backend: &B, shape: Shape, images: Images) -> Result<Tensor<B>, KernelError> {
    backend.normals(shape, images.address(Purpose::Latent, 0))
}

/// What can be seen of a run after each of its steps.
#[derive(Debug)]
pub struct Moment<'a, B: Backend> {
    /// Index of the step that was taken, 0..`of`.
    pub step: usize,
    /// Number of steps.
    pub of: usize,
    /// The time step that the network was told.
    pub time_step: usize,
    /// What the step led to, `[N, H, W, C]`.
    pub x: &'a Tensor<B>,
    /// The image x̂_0 that the network saw in it, clipped as the plan says; if it was asked for.
    pub x_0: Option<&'a Tensor<B>>,
}

impl Plan {
    /// Takes `x` (`[N, H, W, C]`, from [`latents`]) through all steps.
    ///
    /// `model` is called with x_t and the time step t of all images, and returns what the network predicts, of x_t's
    /// shape. `watch` is called after each step, with x̂_0 if `show_x_0`; its error ends the run.
    ///
    /// # Errors
    /// Those of `model`, `watch` and the device.
    pub fn run<B: Backend, E: From<KernelError>>(
        &self,
        backend: &B,
        mut x: Tensor<B>,
        images: Images,
        show_x_0: bool,
        mut model: impl FnMut(&Tensor<B>, usize) -> Result<Tensor<B>, E>,
        mut watch: impl FnMut(&Moment<'_, B>) -> Result<(), E>,
    ) -> Result<Tensor<B>, E> {
        for (i, step) in self.steps.iter().enumerate() {
            let output = model(&x, step.time_step)?;
            let address = images.address(Purpose::Sampler, i as u64);
            let (next, x_0) = backend.reverse_step(x.view(), output.view(), &step.coefficients(), address, show_x_0)?;
            x = next;
            watch(&Moment { step: i, of: self.steps.len(), time_step: step.time_step, x: &x, x_0: x_0.as_ref() })?;
        }
        Ok(x)
    }
}
