//! Presets: settings that are known to work, by name.

mod programs;

use ddpm_nn::config::{DownBlock, SampleSize};

use crate::{
    diffusion::{BetaSchedule, Prediction, TimeSteps, Variance},
    memory::Memory,
    optimiser::Decay,
    optimiser::OptimiserKind,
    samplers::Levels,
    settings::{
        CheckpointSettings, DataSettings, DiffusionSettings, EmaSettings, NetworkSettings, OptimiserSettings,
        PreviewSettings, Settings, SettingsError, TrainSettings,
    },
};

/// A preset: a name, what it is, and its settings.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// What `--preset` takes.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// What `--data` should be given, where the program holds no data for it.
    pub needs: Option<&'static str>,
    settings: fn() -> Settings,
}

impl Preset {
    /// The preset's settings.
    pub fn settings(&self) -> Settings {
        let mut settings = (self.settings)();
        self.name.clone_into(&mut settings.train.name);
        settings
    }
}

/// The paper's, and those that the program has data for.
const OWN: &[Preset] = &[
    Preset {
        name: "digits",
        about: "handwritten digits, 28x28 grey, in the program: minutes on two cores",
        needs: None,
        settings: digits,
    },
    Preset {
        name: "emoji",
        about: "emoji in nine classes, 32x32 colour, in the program: under half an hour on two cores",
        needs: None,
        settings: emoji,
    },
    Preset {
        name: "cifar10",
        about: "CIFAR-10 as in Ho et al. 2020: 35.7 million parameters",
        needs: Some("the folder of CIFAR-10's binary files, or its .tar.gz unpacked"),
        settings: cifar10,
    },
    Preset {
        name: "celebahq256",
        about: "CelebA-HQ 256x256 as in Ho et al. 2020: 114 million parameters",
        needs: Some("a folder of pictures"),
        settings: celebahq256,
    },
    Preset {
        name: "lsun256",
        about: "LSUN Bedroom 256x256 as in Ho et al. 2020: 114 million parameters",
        needs: Some("a folder of pictures"),
        settings: lsun256,
    },
];

/// All presets.
pub fn all() -> impl Iterator<Item = &'static Preset> {
    OWN.iter().chain(programs::PROGRAMS)
}

/// The preset of a name.
///
/// # Errors
/// [`SettingsError::UnknownPreset`] with the nearest name.
pub fn find(name: &str) -> Result<&'static Preset, SettingsError> {
    all().find(|preset| preset.name == name).ok_or_else(|| {
        let nearest = all()
            .map(|preset| (strsim::jaro_winkler(&name.to_lowercase(), preset.name), preset.name))
            .filter(|(likeness, _)| *likeness > 0.7)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, name)| name.to_owned());
        let known = all().map(|preset| preset.name).collect::<Vec<_>>().join(", ");
        SettingsError::UnknownPreset { name: name.to_owned(), nearest, known }
    })
}

/// Levels without attention, but for those listed.
fn levels(count: usize, attention: &[usize]) -> Vec<DownBlock> {
    let block = |level| {
        if attention.contains(&level) { DownBlock::Attention } else { DownBlock::Plain }
    };
    (0..count).map(block).collect()
}

/// The network of Ho et al. 2020 (appendix B) for 32x32: channels 128, multiplied by 1, 2, 2, 2; attention at 16x16.
fn network32() -> NetworkSettings {
    NetworkSettings {
        block_out_channels: vec![128, 256, 256, 256],
        down_block_types: levels(4, &[1]),
        layers_per_block: 2,
        dropout: 0.1,
        ..NetworkSettings::default()
    }
}

/// The network of Ho et al. 2020 (appendix B) for 256x256: channels 128, multiplied by 1, 1, 2, 2, 4, 4; attention at 16x16.
fn network256() -> NetworkSettings {
    NetworkSettings {
        block_out_channels: vec![128, 128, 256, 256, 512, 512],
        down_block_types: levels(6, &[4]),
        layers_per_block: 2,
        ..NetworkSettings::default()
    }
}

/// A network that learns digits within minutes: 1.1 million parameters on one channel.
fn network_small() -> NetworkSettings {
    NetworkSettings {
        block_out_channels: vec![32, 64, 64],
        down_block_types: levels(3, &[2]),
        layers_per_block: 1,
        // 32 groups would be one channel a group at the first level, which erases the time embedding there.
        norm_num_groups: 8,
        ..NetworkSettings::default()
    }
}

/// What suits some minutes on a few cores: a high learning rate that ends near 0, and a short memory of its scale.
fn quick_optimiser(lr: f64) -> OptimiserSettings {
    OptimiserSettings {
        lr,
        warmup: 100,
        decay: Decay::Cosine,
        final_share: 0.01,
        beta_2: 0.99,
        weight_decay: 0.01,
        ..OptimiserSettings::default()
    }
}

/// Adam as in Ho et al. 2020: 5000 steps of warm-up, the gradient's norm cut to 1.
fn paper_optimiser(lr: f64) -> OptimiserSettings {
    OptimiserSettings { kind: OptimiserKind::Adam, lr, warmup: 5000, clip_norm: 1.0, ..OptimiserSettings::default() }
}

/// Minutes are short, and some digits come out as none: pictures are led away from what the first third of the steps had learned, by a
/// sampler whose noise mends what a step got wrong.
fn digits() -> Settings {
    Settings {
        train: TrainSettings { steps: 1500, batch: 64, ..TrainSettings::default() },
        data: DataSettings {
            path: "bundled:digits".to_owned(),
            size: SampleSize::Square(28),
            channels: 1,
            ..DataSettings::default()
        },
        network: network_small(),
        optimiser: quick_optimiser(2e-3),
        ema: EmaSettings { decay: 0.995, early: 500, ..EmaSettings::default() },
        checkpoint: CheckpointSettings { every: 500, ..CheckpointSettings::default() },
        preview: PreviewSettings {
            every: 500,
            sampler: "dpm++sde".to_owned(),
            autoguidance: 3.0,
            guidance_from: 200,
            ..PreviewSettings::default()
        },
        ..Settings::default()
    }
}

/// Few and varied pictures: v on the cosine schedule decides colours and shapes sooner than ε on the linear one; previews are led away
/// from what the first third of the steps had learned, by a sampler that takes its time near the image. Some pictures are learned without
/// their class, for guidance towards it.
fn emoji() -> Settings {
    Settings {
        train: TrainSettings { steps: 3000, batch: 32, ..TrainSettings::default() },
        data: DataSettings {
            path: "bundled:emoji".to_owned(),
            size: SampleSize::Square(32),
            channels: 3,
            classes: true,
            class_dropout: 0.1,
            ..DataSettings::default()
        },
        network: network_emoji(),
        diffusion: DiffusionSettings {
            schedule: BetaSchedule::Cosine,
            prediction: Prediction::V,
            time_steps: TimeSteps::Stratified,
            ..DiffusionSettings::default()
        },
        optimiser: quick_optimiser(1.5e-3),
        ema: EmaSettings { decay: 0.995, early: 1000, ..EmaSettings::default() },
        checkpoint: CheckpointSettings { every: 500, ..CheckpointSettings::default() },
        preview: PreviewSettings {
            every: 1500,
            sampler: "dpm++sde".to_owned(),
            steps: 30,
            levels: Levels::Karras,
            autoguidance: 2.0,
            ..PreviewSettings::default()
        },
        ..Settings::default()
    }
}

fn cifar10() -> Settings {
    Settings {
        train: TrainSettings { steps: 800_000, batch: 128, ..TrainSettings::default() },
        data: DataSettings { size: SampleSize::Square(32), channels: 3, flip: true, ..DataSettings::default() },
        network: network32(),
        optimiser: paper_optimiser(2e-4),
        ema: EmaSettings { decay: 0.9999, ..EmaSettings::default() },
        ..Settings::default()
    }
}

fn celebahq256() -> Settings {
    Settings {
        train: TrainSettings { steps: 500_000, batch: 64, ..TrainSettings::default() },
        data: DataSettings { size: SampleSize::Square(256), channels: 3, flip: true, ..DataSettings::default() },
        network: network256(),
        diffusion: DiffusionSettings { variance: Variance::FixedSmall, ..DiffusionSettings::default() },
        optimiser: paper_optimiser(2e-5),
        ema: EmaSettings { decay: 0.9999, ..EmaSettings::default() },
        preview: PreviewSettings { count: 16, ..PreviewSettings::default() },
        ..Settings::default()
    }
}

/// Bedrooms: the paper flips every set but this one.
fn lsun256() -> Settings {
    let like = celebahq256();
    Settings {
        train: TrainSettings { steps: 2_400_000, ..like.train },
        data: DataSettings { flip: false, ..like.data },
        ..like
    }
}

/// What is known of a user's own pictures before they are decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Pictures {
    /// Name for the run.
    pub name: String,
    /// Height and width, pixels.
    pub size: (usize, usize),
    /// Channels.
    pub channels: usize,
    /// How many there are.
    pub count: usize,
}

/// The side that is taken where pictures are larger and nobody asked for more: what a few cores can learn.
const SIDE: usize = 64;
/// Images in memory at once that a network must leave room for.
const AT_ONCE: usize = 4;

/// Settings for pictures that no preset is for: the largest of the presets' networks that trains in `memory` bytes, at a
/// size that its levels divide; `exact` keeps the size as it is given.
pub fn for_pictures(pictures: &Pictures, exact: bool, memory: u64) -> Settings {
    let (height, width) = pictures.size;
    let shrink = |side: usize| if exact { side } else { side * SIDE.min(height.min(width)) / height.min(width).max(1) };
    let (height, width) = (shrink(height), shrink(width));
    let side = height.min(width);
    let families =
        [(network256 as fn() -> NetworkSettings, 128), (network32, 32), (network_medium, 8), (network_small, 4)];
    let mut best = None;
    for (network, least) in families {
        if side < least && least > 4 {
            continue;
        }
        let mut network = network();
        network.down_block_types = levels(network.block_out_channels.len(), &[attention_level(&network, side)]);
        let multiple = 1 << (network.block_out_channels.len() - 1);
        let round = |side: usize| if exact { side } else { ((side + multiple / 2) / multiple).max(1) * multiple };
        let size = SampleSize::new(round(height), round(width));
        let settings = own(pictures, network, size);
        let need = settings
            .unet(pictures.channels, size.height(), size.width(), None)
            .ok()
            .and_then(|config| Memory::of(&config, size.height(), size.width()).ok());
        let Some(need) = need else {
            best.get_or_insert(settings);
            continue;
        };
        best = Some(settings);
        if need.training(AT_ONCE) <= memory {
            // Whole batches where they fit, else the largest multiple of 16, else what fits.
            let images = (memory.saturating_sub(need.training_fixed) / need.training_per_image.max(1)) as usize;
            if let Some(settings) = &mut best
                && images < settings.train.batch
            {
                settings.train.micro_batch = if images >= 16 { images / 16 * 16 } else { images.max(1) };
            }
            break;
        }
    }
    best.unwrap_or_else(|| own(pictures, network_small(), SampleSize::new(height, width)))
}

/// The level that is nearest to the paper's 16x16.
fn attention_level(network: &NetworkSettings, side: usize) -> usize {
    let deepest = network.block_out_channels.len() - 1;
    (0..=deepest).find(|level| side >> level <= 16).unwrap_or(deepest)
}

/// Few channels where pixels are many, and room to remember what is what where they are few.
fn network_emoji() -> NetworkSettings {
    NetworkSettings { block_out_channels: vec![32, 64, 128, 256], down_block_types: levels(4, &[2]), ..network_small() }
}

/// Three times the work of the digits' network.
fn network_medium() -> NetworkSettings {
    NetworkSettings { block_out_channels: vec![48, 96, 96], ..network_small() }
}

fn own(pictures: &Pictures, network: NetworkSettings, size: SampleSize) -> Settings {
    let batch = (pictures.count * 9 / 10).clamp(1, 64);
    Settings {
        train: TrainSettings { name: pictures.name.clone(), steps: 100_000, batch, ..TrainSettings::default() },
        data: DataSettings { size, channels: pictures.channels, ..DataSettings::default() },
        network,
        optimiser: OptimiserSettings { warmup: 1000, ..OptimiserSettings::default() },
        ema: EmaSettings { decay: 0.9999, warmup: true, ..EmaSettings::default() },
        checkpoint: CheckpointSettings { every: 1000, ..CheckpointSettings::default() },
        preview: PreviewSettings { every: 1000, ..PreviewSettings::default() },
        ..Settings::default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid_and_named() {
        for preset in all() {
            let settings = preset.settings();
            settings.validate().unwrap_or_else(|e| panic!("{}: {e}", preset.name));
            assert_eq!(settings.train.name, preset.name);
            assert_eq!(settings.data.path.is_empty(), preset.needs.is_some());
            let size = settings.data.size;
            settings.unet(settings.data.channels, size.height(), size.width(), None).unwrap();
        }
    }

    #[test]
    fn unknown_presets_are_answered_with_the_nearest() {
        assert_eq!(find("digits").unwrap().name, "digits");
        let message = find("cifar").unwrap_err().to_string();
        assert!(message.contains("did you mean `cifar10`?") && message.contains("lsun256"), "{message}");
        assert!(!find("xyz").unwrap_err().to_string().contains("did you mean"));
    }

    #[test]
    fn the_papers_attention_is_at_16() {
        let presets = [("cifar10", 32), ("celebahq256", 256), ("lsun-church256", 256), ("ddim-celeba64", 64)];
        for (name, side) in presets {
            let network = find(name).unwrap().settings().network;
            for (level, block) in network.down_block_types.iter().enumerate() {
                assert_eq!(*block == DownBlock::Attention, side >> level == 16, "{name} level {level}");
            }
        }
    }

    #[test]
    fn own_pictures_get_the_largest_network_that_fits() {
        let pictures = |size, channels| Pictures { name: "photos".to_owned(), size, channels, count: 1000 };
        let of = |size, exact, memory| {
            let settings = for_pictures(&pictures(size, 3), exact, memory);
            settings.validate().unwrap_or_else(|e| panic!("{size:?}: {e}"));
            settings
        };
        let side = |settings: &Settings| (settings.data.size.height(), settings.data.size.width());
        let large = of((600, 400), false, 64 << 30);
        assert_eq!((side(&large), large.network.block_out_channels.len()), ((96, 64), 4));
        assert_eq!(large.network.down_block_types[2], DownBlock::Attention);
        assert_eq!(of((256, 256), true, 64 << 30).network.block_out_channels.len(), 6);
        assert_eq!(side(&of((30, 30), false, 64 << 30)), (32, 32));
        let small = of((256, 256), true, 600 << 20);
        assert!(small.network.block_out_channels[0] < 128 && small.train.micro_batch < 64);
        assert_eq!(for_pictures(&pictures((28, 28), 1), false, 64 << 30).data.channels, 1);
        assert_eq!(for_pictures(&Pictures { count: 10, ..pictures((8, 8), 1) }, false, 1 << 30).train.batch, 9);
        // What fits nowhere is left for validation to name.
        assert!(for_pictures(&pictures((30, 30), 1), true, 64 << 30).validate().is_err());
    }
}
