//! The objectives that are compared with PyTorch: a small network on digits, one change of the settings each.

use std::sync::Arc;

use ddpm_tensor::Cpu;
use ddpm_train::Error;
use ddpm_train::data::{DataOptions, digits};
use ddpm_train::presets;
use ddpm_train::settings::{Layers, Settings};
use ddpm_train::trainer::{Engine, Trainer};

use crate::cpu;

/// Steps that are compared.
pub const STEPS: u64 = 300;

/// What the preset `digits` is changed to, so that a run takes seconds: two levels of 8 channels, batches of 8.
const SMALL: &[&str] = &[
    "network.block_out_channels=8,8",
    "network.down_block_types=DownBlock2D,AttnDownBlock2D",
    "network.norm_num_groups=4",
    "train.batch=8",
    "train.steps=300",
    "optimiser.warmup=50",
    "preview.count=0",
];

/// A name for each objective, and its settings in the section `diffusion`.
pub const OBJECTIVES: &[(&str, &[&str])] = &[
    ("eps", &[]),
    ("x0", &["prediction=x0"]),
    ("v", &["prediction=v"]),
    ("mean", &["prediction=mean"]),
    ("l1", &["loss=l1"]),
    ("huber", &["loss=huber", "huber_delta=0.5"]),
    ("vlb, mean, fixed_large", &["loss=vlb", "prediction=mean"]),
    ("vlb, eps, fixed_small", &["loss=vlb", "variance=fixed_small"]),
    ("vlb, x0, learned", &["loss=vlb", "prediction=x0", "variance=learned"]),
    ("vlb, eps, learned_range", &["loss=vlb", "variance=learned_range"]),
    ("hybrid, eps, learned_range", &["variance=learned_range"]),
    ("hybrid, v, learned_range", &["variance=learned_range", "prediction=v", "vlb_weight=0.01"]),
    ("elbo, blend", &["variance=blend", "variance_blend=0.5", "elbo_weight=0.1"]),
    ("learned log-variance", &["learn_log_variance=true"]),
    ("min-SNR, v", &["prediction=v", "min_snr_gamma=5"]),
    ("P2", &["weighting=p2", "p2_gamma=0.5"]),
    ("SNR, x0", &["prediction=x0", "weighting=snr"]),
    ("zero terminal SNR, v", &["prediction=v", "zero_terminal_snr=true"]),
    ("offset noise", &["offset_noise=0.1"]),
    ("self-conditioning", &["self_conditioning=true"]),
    ("antithetic", &["time_steps=antithetic"]),
    ("stratified", &["time_steps=stratified"]),
    ("loss-second-moment", &["time_steps=loss_second_moment", "timesteps=50"]),
];

/// The settings of an objective.
pub fn settings(changes: &[&str]) -> Settings {
    let mut layers = Layers::new();
    for change in SMALL {
        layers.set(change).unwrap();
    }
    for change in changes {
        layers.set(&format!("diffusion.{change}")).unwrap();
    }
    layers.over(&presets::find("digits").unwrap().settings()).unwrap()
}

/// A trainer of an objective on the digits.
pub fn trainer(changes: &[&str]) -> Result<Trainer<Cpu>, Error> {
    let settings = settings(changes);
    let data = Arc::new(digits(&DataOptions::from_settings(&settings.data)?)?);
    let cpu = cpu(2);
    let engine = Engine { isa: cpu.isa().to_string(), precision: cpu.precision().to_string() };
    Trainer::new(cpu, engine, settings, &data)
}
