//! Presets: settings that are known to work, by name.

use ddpm_nn::config::{DownBlock, SampleSize};

use crate::{
    diffusion::Variance,
    optimiser::OptimiserKind,
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

/// All presets.
pub const PRESETS: &[Preset] = &[
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

/// The preset of a name.
///
/// # Errors
/// [`SettingsError::UnknownPreset`] with the nearest name.
pub fn find(name: &str) -> Result<&'static Preset, SettingsError> {
    PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
        let nearest = PRESETS
            .iter()
            .map(|preset| (strsim::jaro_winkler(&name.to_lowercase(), preset.name), preset.name))
            .filter(|(likeness, _)| *likeness > 0.7)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, name)| name.to_owned());
        let known = PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ");
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

/// What suits some minutes on a few cores: a high learning rate, a short memory.
fn quick_optimiser() -> OptimiserSettings {
    OptimiserSettings { lr: 1e-3, warmup: 100, weight_decay: 0.01, ..OptimiserSettings::default() }
}

/// Adam as in Ho et al. 2020: 5000 steps of warm-up, the gradient's norm cut to 1.
fn paper_optimiser(lr: f64) -> OptimiserSettings {
    OptimiserSettings { kind: OptimiserKind::Adam, lr, warmup: 5000, clip_norm: 1.0, ..OptimiserSettings::default() }
}

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
        optimiser: quick_optimiser(),
        ema: EmaSettings { decay: 0.995, ..EmaSettings::default() },
        checkpoint: CheckpointSettings { every: 500, ..CheckpointSettings::default() },
        preview: PreviewSettings { every: 500, ..PreviewSettings::default() },
        ..Settings::default()
    }
}

fn emoji() -> Settings {
    Settings {
        train: TrainSettings { steps: 2500, batch: 64, ..TrainSettings::default() },
        data: DataSettings {
            path: "bundled:emoji".to_owned(),
            size: SampleSize::Square(32),
            channels: 3,
            classes: true,
            ..DataSettings::default()
        },
        network: NetworkSettings { block_out_channels: vec![48, 96, 96], ..network_small() },
        optimiser: quick_optimiser(),
        ema: EmaSettings { decay: 0.995, ..EmaSettings::default() },
        checkpoint: CheckpointSettings { every: 500, ..CheckpointSettings::default() },
        preview: PreviewSettings { every: 500, ..PreviewSettings::default() },
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid_and_named() {
        for preset in PRESETS {
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
        for (name, side) in [("cifar10", 32), ("celebahq256", 256), ("lsun256", 256)] {
            let network = find(name).unwrap().settings().network;
            for (level, block) in network.down_block_types.iter().enumerate() {
                assert_eq!(*block == DownBlock::Attention, side >> level == 16, "{name} level {level}");
            }
        }
    }
}
