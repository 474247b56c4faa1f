//! Presets that repeat the settings of other programs, as far as they are settings here: `docs/coming-from.md` says what each
//! program has that these do not.

use ddpm_nn::config::{SampleSize, TimeScaleShift};

use super::{Preset, celebahq256, levels, network32, network256, paper_optimiser};
use crate::{
    diffusion::{BetaSchedule, Prediction, Variance},
    optimiser::{Decay, OptimiserKind},
    settings::{
        DataSettings, DiffusionSettings, EmaSettings, NetworkSettings, OptimiserSettings, PreviewSettings, Settings,
        TrainSettings,
    },
};

const PICTURES: Option<&str> = Some("a folder of pictures");

/// The presets.
pub(super) const PROGRAMS: &[Preset] = &[
    Preset {
        name: "lsun-cat256",
        about: "LSUN Cat 256x256 as in Ho et al. 2020: 114 million parameters",
        needs: PICTURES,
        settings: || lsun(1_800_000),
    },
    Preset {
        name: "lsun-church256",
        about: "LSUN Church 256x256 as in Ho et al. 2020: 114 million parameters",
        needs: PICTURES,
        settings: || lsun(1_200_000),
    },
    Preset {
        name: "improved-cifar10",
        about: "CIFAR-10 with the network and schedule of improved-diffusion (Nichol and Dhariwal 2021)",
        needs: Some("the folder of CIFAR-10's binary files, or its .tar.gz unpacked"),
        settings: improved_cifar10,
    },
    Preset {
        name: "improved-imagenet64",
        about: "ImageNet 64x64 with the network and schedule of improved-diffusion (Nichol and Dhariwal 2021)",
        needs: PICTURES,
        settings: improved_imagenet64,
    },
    Preset {
        name: "ddim-cifar10",
        about: "CIFAR-10 as ermongroup/ddim trains it (Song et al. 2021)",
        needs: Some("the folder of CIFAR-10's binary files, or its .tar.gz unpacked"),
        settings: || ddim(32, network32(), 128, 2e-4, 0.9999, Variance::FixedLarge, true),
    },
    Preset {
        name: "ddim-celeba64",
        about: "CelebA 64x64 as ermongroup/ddim trains it (Song et al. 2021)",
        needs: PICTURES,
        settings: || ddim(64, network64(), 128, 2e-4, 0.9999, Variance::FixedLarge, true),
    },
    Preset {
        name: "ddim-bedroom",
        about: "LSUN Bedroom 256x256 as ermongroup/ddim trains it (Song et al. 2021)",
        needs: PICTURES,
        settings: || ddim(256, network256(), 64, 2e-5, 0.999, Variance::FixedSmall, false),
    },
    Preset {
        name: "ddim-church",
        about: "LSUN Church 256x256 as ermongroup/ddim trains it (Song et al. 2021)",
        needs: PICTURES,
        settings: || ddim(256, network256(), 64, 2e-5, 0.999, Variance::FixedSmall, false),
    },
    Preset {
        name: "bubbliiiing",
        about: "32x32 pictures with the settings of bubbliiiing/ddpm-pytorch",
        needs: PICTURES,
        settings: bubbliiiing,
    },
    Preset {
        name: "compvis",
        about: "256x256 pictures with the defaults of the class DDPM in CompVis' ddpm.py",
        needs: PICTURES,
        settings: compvis,
    },
    Preset {
        name: "lucidrains",
        about: "128x128 pictures with the settings of denoising-diffusion-pytorch, in a network of the same widths",
        needs: PICTURES,
        settings: lucidrains,
    },
];

/// The paper's other LSUN sets, which it flips (Ho et al. 2020, appendix B).
fn lsun(steps: u64) -> Settings {
    let like = celebahq256();
    Settings { train: TrainSettings { steps, ..like.train }, ..like }
}

fn square(side: usize) -> DataSettings {
    DataSettings { size: SampleSize::Square(side), channels: 3, ..DataSettings::default() }
}

/// What improved-diffusion, guided-diffusion and CompVis' U-Net have in common.
fn openai(network: NetworkSettings) -> NetworkSettings {
    NetworkSettings { norm_eps: 1e-5, downsample_padding: 1, freq_shift: 0, flip_sin_to_cos: true, ..network }
}

/// improved-diffusion's scripts with the flags of its README. Its learned variances are a setting of the loss.
fn improved(side: usize, network: NetworkSettings, steps: u64) -> Settings {
    Settings {
        train: TrainSettings { steps, batch: 128, ..TrainSettings::default() },
        data: square(side),
        network: NetworkSettings {
            layers_per_block: 3,
            attention_head_dim: 64,
            // The middle attention has a normalisation there, which diffusers leaves out with scale_shift.
            attn_norm_num_groups: 32,
            resnet_time_scale_shift: TimeScaleShift::ScaleShift,
            ..openai(network)
        },
        diffusion: DiffusionSettings {
            schedule: BetaSchedule::Cosine,
            timesteps: 4000,
            ..DiffusionSettings::default()
        },
        optimiser: OptimiserSettings { lr: 1e-4, warmup: 0, clip_norm: 0.0, ..OptimiserSettings::default() },
        ema: EmaSettings { decay: 0.9999, ..EmaSettings::default() },
        ..Settings::default()
    }
}

fn improved_cifar10() -> Settings {
    let network = NetworkSettings { down_block_types: levels(4, &[1, 2]), dropout: 0.3, ..network32() };
    improved(32, network, 500_000)
}

fn improved_imagenet64() -> Settings {
    let network = NetworkSettings {
        block_out_channels: vec![128, 256, 384, 512],
        down_block_types: levels(4, &[2, 3]),
        ..NetworkSettings::default()
    };
    improved(64, network, 1_500_000)
}

/// ermongroup/ddim's network for CelebA: channels 128, multiplied by 1, 2, 2, 2, 4; attention at 16x16.
fn network64() -> NetworkSettings {
    NetworkSettings {
        block_out_channels: vec![128, 256, 256, 256, 512],
        down_block_types: levels(5, &[2]),
        ..network32()
    }
}

/// ermongroup/ddim's configurations.
fn ddim(
    side: usize,
    network: NetworkSettings,
    batch: usize,
    lr: f64,
    decay: f64,
    variance: Variance,
    clips: bool,
) -> Settings {
    // Its loss is a sum over the picture where ours is a mean: its bounds on gradients, in our units.
    let unit = 1.0 / (side * side * 3) as f64;
    Settings {
        train: TrainSettings { steps: 5_000_000, batch, ..TrainSettings::default() },
        data: DataSettings { flip: true, ..square(side) },
        network,
        diffusion: DiffusionSettings { variance, clip: false, ..DiffusionSettings::default() },
        optimiser: OptimiserSettings {
            warmup: 0,
            eps: 1e-8 * unit,
            clip_norm: if clips { unit } else { 0.0 },
            ..paper_optimiser(lr)
        },
        ema: EmaSettings { decay, ..EmaSettings::default() },
        preview: PreviewSettings { count: if side > 64 { 16 } else { 64 }, ..PreviewSettings::default() },
        ..Settings::default()
    }
}

fn bubbliiiing() -> Settings {
    Settings {
        train: TrainSettings { steps: 200_000, batch: 64, ..TrainSettings::default() },
        data: DataSettings { crop: "none".to_owned(), resize: "bicubic".to_owned(), ..square(32) },
        network: NetworkSettings {
            block_out_channels: vec![128, 256, 512, 1024],
            down_block_types: levels(4, &[1]),
            layers_per_block: 3,
            dropout: 0.1,
            norm_eps: 1e-5,
            downsample_padding: 1,
            freq_shift: 0,
            ..NetworkSettings::default()
        },
        diffusion: DiffusionSettings { clip: false, ..DiffusionSettings::default() },
        optimiser: OptimiserSettings {
            kind: OptimiserKind::Adam,
            lr: 2e-4,
            warmup: 600,
            decay: Decay::Cosine,
            final_share: 0.01,
            clip_norm: 0.0,
            ..OptimiserSettings::default()
        },
        ema: EmaSettings { decay: 0.9999, warmup: true, ..EmaSettings::default() },
        ..Settings::default()
    }
}

fn compvis() -> Settings {
    Settings {
        train: TrainSettings { steps: 500_000, batch: 64, ..TrainSettings::default() },
        data: square(256),
        network: openai(network256()),
        diffusion: DiffusionSettings {
            schedule: BetaSchedule::ScaledLinear,
            variance: Variance::FixedSmall,
            ..DiffusionSettings::default()
        },
        optimiser: OptimiserSettings {
            lr: 1e-4,
            warmup: 0,
            weight_decay: 0.01,
            clip_norm: 0.0,
            ..OptimiserSettings::default()
        },
        ema: EmaSettings { decay: 0.9999, warmup: true, ..EmaSettings::default() },
        preview: PreviewSettings { count: 16, ..PreviewSettings::default() },
        ..Settings::default()
    }
}

fn lucidrains() -> Settings {
    Settings {
        train: TrainSettings { steps: 100_000, batch: 16, ..TrainSettings::default() },
        data: DataSettings { flip: true, resize: "bilinear".to_owned(), ..square(128) },
        network: NetworkSettings {
            block_out_channels: vec![64, 128, 256, 512],
            down_block_types: levels(4, &[3]),
            attention_head_dim: 32,
            ..NetworkSettings::default()
        },
        diffusion: DiffusionSettings {
            schedule: BetaSchedule::Cosine,
            prediction: Prediction::V,
            variance: Variance::FixedSmall,
            ..DiffusionSettings::default()
        },
        optimiser: OptimiserSettings { warmup: 0, beta_2: 0.99, ..paper_optimiser(1e-4) },
        ema: EmaSettings { decay: 0.995, ..EmaSettings::default() },
        preview: PreviewSettings { every: 1000, count: 25, ..PreviewSettings::default() },
        ..Settings::default()
    }
}
