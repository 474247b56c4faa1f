//! The forward process: from an image to noise.

use ddpm_kernels::{Backend, KernelError};
use ddpm_tensor::Tensor;
use ddpm_tensor::random::{Address, Purpose};

use super::Schedule;

/// y = `signal` · x + `noise` · ε with ε ~ N(0, 1): how one noising scales its two parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noising {
    /// Factor of the image.
    pub signal: f64,
    /// Standard deviation of the noise.
    pub noise: f64,
}

impl Noising {
    /// The closed form x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε (Ho et al. 2020, eq. 4).
    ///
    /// # Panics
    /// If t ≥ T, as an array would.
    pub fn of_image(schedule: &Schedule, t: usize) -> Self {
        let alpha_bar = schedule.alpha_bar()[t];
        Self { signal: alpha_bar.sqrt(), noise: (1.0 - alpha_bar).sqrt() }
    }

    /// One step x_t = √(1 − β_t) x_{t−1} + √β_t ε (Ho et al. 2020, eq. 2).
    ///
    /// # Panics
    /// If t ≥ T, as an array would.
    pub fn of_step(schedule: &Schedule, t: usize) -> Self {
        let beta = schedule.beta()[t];
        Self { signal: (1.0 - beta).sqrt(), noise: beta.sqrt() }
    }

    /// This noising after `earlier`: signals multiply, variances add.
    #[must_use]
    pub fn after(self, earlier: Self) -> Self {
        Self { signal: self.signal * earlier.signal, noise: (self.signal * earlier.noise).hypot(self.noise) }
    }

    /// (signal, noise) as the noising kernel takes them.
    pub fn to_f32(self) -> (f32, f32) {
        (self.signal as f32, self.noise as f32)
    }
}

/// (√ᾱ_t, √(1 − ᾱ_t)) for every t, `[T]`: the table from which a trainer picks the factors of each image.
pub fn noising_table(schedule: &Schedule) -> Vec<(f32, f32)> {
    (0..schedule.time_steps()).map(|t| Noising::of_image(schedule, t).to_f32()).collect()
}

/// Walks the images `x_0` through all time steps twice: step by step, x_t ~ q(x_t | x_{t−1}), and in closed form,
/// x_t ~ q(x_t | x_0), each with noise of its own. `watch` sees (t, the chain's x_t, the closed form's x_t) where `wanted(t)`.
///
/// # Errors
/// Those of the device, and of `watch`.
pub fn walk<B: Backend, E: From<KernelError>>(
    backend: &B,
    schedule: &Schedule,
    x_0: &Tensor<B>,
    seed: u64,
    wanted: impl Fn(usize) -> bool,
    mut watch: impl FnMut(usize, &Tensor<B>, &Tensor<B>) -> Result<(), E>,
) -> Result<(), E> {
    let images = x_0.shape().dims().first().copied().unwrap_or(0);
    let noised = |x: &Tensor<B>, noising: Noising, purpose, t: usize| {
        let address = Address::new(seed, purpose).at_step(t as u64);
        backend.noise(x.view(), &vec![noising.to_f32(); images], address).map(|(x_t, _)| x_t)
    };
    let mut chain = Tensor::copy_of(backend, x_0.view()).map_err(KernelError::from)?;
    for t in 0..schedule.time_steps() {
        chain = noised(&chain, Noising::of_step(schedule, t), Purpose::Noise, t)?;
        if wanted(t) {
            watch(t, &chain, &noised(x_0, Noising::of_image(schedule, t), Purpose::Latent, t)?)?;
        }
    }
    Ok(())
}
