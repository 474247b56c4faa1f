//! A network that never changes and 16 pictures: what likelihoods are checked on. Included by a test and by an example.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // neither uses all of it

use std::path::PathBuf;

use ddpm_nn::{Parameters, UNet, UNetConfig};
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cpu, CpuOptions, Precision, Tensor};
use ddpm_train::checkpoint::Weights;
use ddpm_train::diffusion::{Schedule, Variance};
use ddpm_train::eval::Denoiser;
use ddpm_train::model::Trained;

/// Pictures.
pub const COUNT: usize = 16;
/// Of these, those that networks with a learned variance are checked on.
pub const LEARNED_COUNT: usize = 4;
/// Seed of their noise.
pub const SEED: u64 = 3;

/// The network with its numbers on a CPU.
pub struct Fixed {
    pub cpu: Cpu<f32>,
    pub model: Trained,
    pub parameters: Parameters<Cpu<f32>>,
    pub schedule: Schedule,
}

pub fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

impl Fixed {
    /// In `strict`, whose bits are the same on every instruction set.
    pub fn new(threads: usize) -> Self {
        let options = CpuOptions { threads: Some(threads), precision: Precision::Strict, ..CpuOptions::default() };
        let cpu = Cpu::new(options).unwrap();
        let model = Trained::load(&fixtures().join("pipeline"), Weights::Ema).unwrap();
        let parameters = Parameters::from_host(&cpu, model.unet.layout(), &model.parameters).unwrap();
        let schedule = model.scheduler.schedule.build().unwrap();
        Self { cpu, model, parameters, schedule }
    }

    /// The same network with a last layer that says the variance too: its numbers are drawn.
    pub fn learned(threads: usize, variance: Variance) -> Self {
        let mut fixed = Self::new(threads);
        let before = fixed.model.unet.config().clone();
        let unet = UNet::new(&UNetConfig { out_channels: 2 * before.out_channels, ..before }).unwrap();
        let mut parameters = Parameters::zeros(&fixed.cpu, unet.layout()).unwrap();
        for parameter in unet.layout().parameters() {
            let (name, len) = (parameter.name.as_str(), parameter.shape.len());
            let mut values = fixed.parameters.read(&fixed.cpu, name).unwrap();
            if values.len() != len {
                values = vec![0.0; len];
                Address::new(SEED, Purpose::Test).fill_normal(0, &mut values);
                for x in &mut values {
                    *x *= 0.1;
                }
            }
            parameters.write(&fixed.cpu, name, &values).unwrap();
        }
        (fixed.model.unet, fixed.parameters) = (unet, parameters);
        fixed.model.scheduler.options.variance = variance;
        fixed
    }

    pub fn denoiser(&self) -> Denoiser<'_, Cpu<f32>> {
        let options = &self.model.scheduler.options;
        Denoiser {
            backend: &self.cpu,
            unet: &self.model.unet,
            parameters: &self.parameters,
            schedule: &self.schedule,
            prediction: options.prediction,
            variance: options.variance,
            variance_blend: options.variance_blend,
            clip: options.clip,
        }
    }
}

/// Levels 0 to 255 of all pictures, `[16, 8, 8, 3]`: discs on slopes.
pub fn levels() -> Vec<u8> {
    let level = |i: usize, y: usize, x: usize, c: usize| {
        let (dy, dx) = (y as f64 - (i % 4) as f64 * 2.0, x as f64 - (i / 4) as f64 * 2.0);
        let inside = dy * dy + dx * dx < 6.0 + c as f64;
        (if inside { 255 - 40 * c } else { 9 * x + 11 * y * c + 3 * i }) as u8
    };
    let pixels = (0..COUNT).flat_map(|i| (0..64).map(move |p| (i, p / 8, p % 8)));
    pixels.flat_map(|(i, y, x)| (0..3).map(move |c| level(i, y, x, c))).collect()
}

/// Pictures `part` in [−1, 1].
pub fn pictures(cpu: &Cpu<f32>, part: std::ops::Range<usize>) -> Tensor<Cpu<f32>> {
    let values: Vec<f32> = levels().iter().map(|&level| f32::from(level) / 127.5 - 1.0).collect();
    Tensor::from_slice(cpu, [part.len(), 8, 8, 3], &values[part.start * 192..part.end * 192]).unwrap()
}
