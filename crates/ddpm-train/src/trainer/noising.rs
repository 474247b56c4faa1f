//! What the network is shown and what it is to say: x_t, its target, and what it saw before.

use ddpm_kernels::Backend;
use ddpm_nn::{Mode, Parameters};
use ddpm_tensor::Tensor;
use ddpm_tensor::random::{Address, Purpose};

use super::Trainer;
use crate::channels::beside;
use crate::diffusion::Prediction;
use crate::error::Error;

impl<B: Backend<Elem = f32>> Trainer<B> {
    /// x_t of images x_0 at time steps t, with the ε of an address, and what the network is to predict of it. With `offset` noise,
    /// ε is ε + s z, z one number for each image and channel.
    pub(super) fn noised(
        &self,
        x_0: &Tensor<B>,
        t: &[usize],
        address: Address,
        offset: Option<Address>,
    ) -> Result<(Tensor<B>, Tensor<B>), Error> {
        let (backend, criterion) = (&self.backend, &self.criterion);
        let factors = |table: &[(f32, f32)]| t.iter().map(|&t| table[t]).collect::<Vec<_>>();
        let (noising, of_target) = (factors(&criterion.noising), factors(&criterion.target));
        let (mut x_t, eps) = backend.noise(x_0.view(), &noising, address)?;
        let mut target = match criterion.prediction {
            Prediction::Eps => eps,
            Prediction::X0 => Tensor::copy_of(backend, x_0.view())?,
            // These are noisings too, of the same ε.
            Prediction::V | Prediction::Mean => backend.noise(x_0.view(), &of_target, address)?.0,
        };
        if let Some(offset) = offset {
            for (to, factors) in [(&mut x_t, noising), (&mut target, of_target)] {
                let shift = self.offset(offset, &factors)?;
                backend.add_scaled(to, 1.0, shift.view())?;
            }
        }
        Ok((x_t, target))
    }

    /// The offset noise of images, times what their ε is multiplied with.
    fn offset(&self, address: Address, factors: &[(f32, f32)]) -> Result<Tensor<B>, Error> {
        let [height, width, channels] = self.image();
        let strength = self.settings.diffusion.offset_noise;
        let mut values = Vec::with_capacity(factors.len() * height * width * channels);
        let mut z = vec![0.0; channels];
        for (i, (_, factor)) in factors.iter().enumerate() {
            address.at_sample(address.sample + i as u64).fill_normal(0, &mut z);
            let pixel: Vec<f32> = z.iter().map(|z| (strength * f64::from(*factor) * f64::from(*z)) as f32).collect();
            for _ in 0..height * width {
                values.extend_from_slice(&pixel);
            }
        }
        Ok(Tensor::from_slice(&self.backend, [factors.len(), height, width, channels], &values)?)
    }

    /// What the network sees: x_t, and with self-conditioning beside it the x̂_0 of a pass that saw zeros there, or zeros (Chen et al.
    /// 2023, algorithm 1). No gradient goes through that pass.
    pub(super) fn input(
        &self,
        parameters: &Parameters<B>,
        x_t: &Tensor<B>,
        t: &[usize],
        classes: Option<&[usize]>,
        looks_back: bool,
    ) -> Result<Option<Tensor<B>>, Error> {
        let diffusion = &self.settings.diffusion;
        if !diffusion.self_conditioning {
            return Ok(None);
        }
        let (backend, criterion) = (&self.backend, &self.criterion);
        let blind = beside(backend, x_t, &Tensor::zeros(backend, x_t.shape())?)?;
        if !looks_back {
            return Ok(Some(blind));
        }
        let times: Vec<f32> = t.iter().map(|&t| t as f32).collect();
        let (output, _) = self.unet.forward(backend, parameters, blind.view(), &times, classes, Mode::Infer)?;
        let output = criterion.parts(backend, output)?.0.to_vec(backend)?;
        let mut x_0 = x_t.to_vec(backend)?;
        let each = x_0.len() / t.len().max(1);
        let bound = if diffusion.clip { diffusion.clip_range } else { f64::INFINITY };
        for ((x, output), &t) in x_0.chunks_mut(each).zip(output.chunks(each)).zip(t) {
            for (x, output) in x.iter_mut().zip(output) {
                *x = criterion.x_0[t].of(f64::from(*x), f64::from(*output)).clamp(-bound, bound) as f32;
            }
        }
        let x_0 = Tensor::from_slice(backend, x_t.shape(), &x_0)?;
        Ok(Some(beside(backend, x_t, &x_0)?))
    }

    /// Whether the network is shown what it saw before, in the step that follows so many: one half of all.
    pub(super) fn looks_back(&self, step: u64) -> bool {
        let [draw, ..] = Address::new(self.settings.train.seed, Purpose::SelfCondition).at_step(step).block(0);
        self.settings.diffusion.self_conditioning && draw % 2 == 1
    }
}
