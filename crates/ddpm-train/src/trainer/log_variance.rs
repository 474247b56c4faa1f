//! The logarithm s_t of the loss's variance at each time step, learned beside the network (latent diffusion's `learn_logvar`):
//! its values, gradients, moments and average, each a flat buffer as the network's own.

use std::sync::Arc;

use ddpm_kernels::Backend;
use ddpm_kernels::adamw::AdamWStep;
use ddpm_nn::Parameters;
use ddpm_nn::layout::{Init, Layout, Role};

use crate::error::Error;

/// Its name in checkpoints.
const NAME: &str = "log_variance";

/// s_t and all that training needs of it.
#[derive(Debug)]
pub(super) struct LogVariances<B: Backend<Elem = f32>> {
    /// Values, m, v and the moving average, in this order.
    pub(super) numbers: [Parameters<B>; 4],
    grads: Parameters<B>,
    /// The values, and the gradient of this step so far.
    pub(super) host: Vec<f32>,
    gradient: Vec<f64>,
}

impl<B: Backend<Elem = f32>> LogVariances<B> {
    /// What precedes the names of the four buffers in a checkpoint.
    pub(super) const PREFIXES: [&'static str; 4] = ["", "m.", "v.", "ema."];

    /// One value for each of `time_steps`, all `init`.
    pub(super) fn new(backend: &B, time_steps: usize, init: f64) -> Result<Self, Error> {
        let mut layout = Layout::default();
        layout.at("").add(NAME, [time_steps], Role::Bias, Init::Constant(init as f32));
        let layout = Arc::new(layout);
        let mut flat = vec![0.0; layout.len()];
        flat[..time_steps].fill(init as f32);
        let values = || Parameters::from_host(backend, &layout, &flat);
        let zeros = || Parameters::zeros(backend, &layout);
        Ok(Self {
            numbers: [values()?, zeros()?, zeros()?, values()?],
            grads: zeros()?,
            host: vec![init as f32; time_steps],
            gradient: vec![0.0; time_steps],
        })
    }

    /// Names and places of the numbers.
    pub(super) fn layout(&self) -> Arc<Layout> {
        Arc::clone(self.grads.layout())
    }

    /// Adds an image's gradient.
    pub(super) fn add(&mut self, t: usize, gradient: f64) {
        self.gradient[t] += gradient;
    }

    /// Forgets the gradients of a step that failed.
    pub(super) fn forget(&mut self) {
        self.gradient.fill(0.0);
    }

    /// The squared norm of the step's gradient.
    pub(super) fn squared_norm(&self) -> f64 {
        self.gradient.iter().map(|g| g * g).sum()
    }

    /// An update, with what the network's has.
    pub(super) fn update(&mut self, backend: &B, update: &AdamWStep) -> Result<(), Error> {
        let grads: Vec<f32> = self.gradient.iter().map(|&g| g as f32).collect();
        self.grads.write(backend, NAME, &grads)?;
        let [values, m, v, ema] = self.numbers.each_mut().map(Parameters::buffer_mut);
        backend.adamw(update, values, self.grads.buffer_mut(), m, v, ema)?;
        self.forget();
        self.refresh(backend)
    }

    /// Brings the values to the host.
    pub(super) fn refresh(&mut self, backend: &B) -> Result<(), Error> {
        self.host = self.numbers[0].read(backend, NAME)?;
        Ok(())
    }
}
