//! How much memory a network takes, from its options alone.

use ddpm_nn::{
    UNet, UNetConfig,
    config::{DownBlock, UpBlock},
};

use crate::error::Error;

const F32: u64 = 4;

/// An estimate, bytes. What the operations need in passing is estimated roughly: expect the truth within a third.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Numbers that are learned.
    pub parameters: u64,
    /// Weights, gradients, both moments and the average.
    pub training_fixed: u64,
    /// For each image that is in memory at once while training: what `backward` needs.
    pub training_per_image: u64,
    /// Weights.
    pub sampling_fixed: u64,
    /// For each image that is drawn at once.
    pub sampling_per_image: u64,
}

impl Memory {
    /// The estimate for images of `height` x `width` pixels.
    ///
    /// # Errors
    /// Options that contradict each other.
    pub fn of(config: &UNetConfig, height: usize, width: usize) -> Result<Self, Error> {
        let layout_len = UNet::new(config)?.layout().count() as u64;
        let maps = Maps::of(config, height * width);
        Ok(Self {
            parameters: layout_len,
            training_fixed: 5 * layout_len * F32,
            training_per_image: (maps.kept + 6 * maps.largest) * F32,
            sampling_fixed: layout_len * F32,
            sampling_per_image: (maps.skips + 6 * maps.largest) * F32,
        })
    }

    /// Bytes to train with so many images in memory at once.
    pub fn training(&self, at_once: usize) -> u64 {
        self.training_fixed + at_once as u64 * self.training_per_image
    }

    /// Bytes to draw so many images at once.
    pub fn sampling(&self, at_once: usize) -> u64 {
        self.sampling_fixed + at_once as u64 * self.sampling_per_image
    }
}

/// Bytes that are free for this process: the least of what the machine and its control group leave; 4 GiB where neither
/// says (not Linux).
pub fn available() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let number = |file: &str| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max")
        .map(|most| most.saturating_sub(number("/sys/fs/cgroup/memory.current").unwrap_or(0)));
    [machine, group].into_iter().flatten().min().unwrap_or(4 << 30)
}

/// Numbers of one image's feature maps.
struct Maps {
    /// Kept for `backward`.
    kept: u64,
    /// Kept for the way up.
    skips: u64,
    /// The largest one.
    largest: u64,
}

impl Maps {
    fn of(config: &UNetConfig, pixels: usize) -> Self {
        let levels = config.levels();
        let at = |level: usize, channels: usize| (channels * (pixels >> (2 * level))) as u64;
        let first = at(0, config.block_out_channels[0]);
        let mut maps = Self { kept: first, skips: first, largest: first };
        // A residual block keeps its hidden map and its result; an attention q, k, v, what they give, and its result.
        for (level, &channels) in config.block_out_channels.iter().enumerate() {
            let map = at(level, channels);
            let attends = config.down_block_types[level] == DownBlock::Attention;
            let each = if attends { 7 } else { 2 };
            maps.kept += config.layers_per_block as u64 * each * map;
            maps.skips += config.layers_per_block as u64 * map;
            maps.largest = maps.largest.max(map);
            if level + 1 < levels {
                maps.kept += map / 4;
                maps.skips += map / 4;
            }
        }
        let last = at(levels - 1, config.block_out_channels[levels - 1]);
        maps.kept += (4 + if config.add_attention { 5 } else { 0 }) * last;
        for (i, block) in config.up_block_types.iter().enumerate() {
            let level = levels - 1 - i;
            let map = at(level, config.block_out_channels[level]);
            let each = if *block == UpBlock::Attention { 7 } else { 2 };
            maps.kept += (config.layers_per_block as u64 + 1) * each * map;
            if level > 0 {
                // Doubled, with the level's own channels.
                maps.kept += 4 * map;
                maps.largest = maps.largest.max(4 * map);
            }
        }
        maps
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::presets;

    #[test]
    fn the_papers_networks_have_the_papers_parameters() {
        for (name, parameters) in [("cifar10", 35_746_307), ("digits", 1_112_801), ("lsun256", 113_673_219)] {
            let settings = presets::find(name).unwrap().settings();
            let (size, channels) = (settings.data.size, settings.data.channels);
            let config = settings.unet(channels, size.height(), size.width(), None).unwrap();
            let memory = Memory::of(&config, size.height(), size.width()).unwrap();
            assert_eq!(memory.parameters, parameters, "{name}");
            assert!(memory.training(16) > memory.sampling(16));
        }
    }
}
