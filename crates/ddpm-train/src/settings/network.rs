//! From settings to what the other parts are built from.

use ddpm_nn::config::{ConfigError, DownBlock, SampleSize, UNetConfig, UpBlock};

use super::sections::Loss;
use super::{NetworkSettings, Settings};
use crate::diffusion::{Objective, ScheduleSettings, Weighting, Weights};

impl NetworkSettings {
    /// The settings that stand for a network, whose channels, size and classes are the data's.
    pub fn of(config: &UNetConfig) -> Self {
        Self {
            block_out_channels: config.block_out_channels.clone(),
            down_block_types: config.down_block_types.clone(),
            up_block_types: config.up_block_types.clone(),
            layers_per_block: config.layers_per_block,
            add_attention: config.add_attention,
            attention_head_dim: config.attention_head_dim.unwrap_or(0),
            norm_num_groups: config.norm_num_groups,
            norm_eps: config.norm_eps,
            attn_norm_num_groups: config.attn_norm_num_groups.unwrap_or(0),
            resnet_time_scale_shift: config.resnet_time_scale_shift,
            dropout: config.dropout,
            downsample_padding: config.downsample_padding,
            freq_shift: config.freq_shift.max(0) as usize,
            flip_sin_to_cos: config.flip_sin_to_cos,
            mid_block_scale_factor: config.mid_block_scale_factor,
            time_embedding_dim: config.time_embedding_dim.unwrap_or(0),
        }
    }
}

impl Settings {
    /// The network for images of `height` x `width` pixels and `channels` channels, twice as many at its input with
    /// self-conditioning and at its output where it learns the variance; with `classes` it learns a table of
    /// that many, and of one more where classes are dropped.
    ///
    /// # Errors
    /// [`ConfigError`] where the options contradict each other or the size, with the nearest sizes that fit.
    pub fn unet(
        &self,
        channels: usize,
        height: usize,
        width: usize,
        classes: Option<usize>,
    ) -> Result<UNetConfig, ConfigError> {
        let network = &self.network;
        let some = |n: usize| (n > 0).then_some(n);
        let mirrored = || {
            let up = |block: &DownBlock| match block {
                DownBlock::Attention => UpBlock::Attention,
                DownBlock::Plain => UpBlock::Plain,
            };
            network.down_block_types.iter().rev().map(up).collect()
        };
        let diffusion = &self.diffusion;
        let twice = |yes: bool| 1 + usize::from(yes);
        let config = UNetConfig {
            sample_size: Some(SampleSize::new(height, width)),
            in_channels: channels * twice(diffusion.self_conditioning),
            out_channels: channels * twice(diffusion.variance.is_learned()),
            freq_shift: network.freq_shift as i64,
            flip_sin_to_cos: network.flip_sin_to_cos,
            time_embedding_dim: some(network.time_embedding_dim),
            down_block_types: network.down_block_types.clone(),
            up_block_types: match network.up_block_types.as_slice() {
                [] => mirrored(),
                said => said.to_vec(),
            },
            block_out_channels: network.block_out_channels.clone(),
            layers_per_block: network.layers_per_block,
            mid_block_scale_factor: network.mid_block_scale_factor,
            downsample_padding: network.downsample_padding,
            dropout: network.dropout,
            attention_head_dim: some(network.attention_head_dim),
            norm_num_groups: network.norm_num_groups,
            attn_norm_num_groups: some(network.attn_norm_num_groups),
            norm_eps: network.norm_eps,
            resnet_time_scale_shift: network.resnet_time_scale_shift,
            add_attention: network.add_attention,
            num_class_embeds: classes.map(|count| count + usize::from(self.null_class(count).is_some())),
            ..UNetConfig::default()
        };
        config.validate(height, width)?;
        Ok(config)
    }

    /// The label that stands for no class, where some are dropped: the one after the `count` classes.
    pub fn null_class(&self, count: usize) -> Option<usize> {
        (self.data.class_dropout > 0.0).then_some(count)
    }

    /// What determines the noise schedule.
    pub fn schedule(&self) -> ScheduleSettings {
        let d = &self.diffusion;
        ScheduleSettings {
            schedule: d.schedule,
            timesteps: d.timesteps,
            beta_start: d.beta_start,
            beta_end: d.beta_end,
            zero_terminal_snr: d.zero_terminal_snr,
            ..ScheduleSettings::default()
        }
    }

    /// The loss.
    pub fn objective(&self) -> Objective {
        match self.diffusion.loss {
            Loss::L2 => Objective::L2,
            Loss::L1 => Objective::L1,
            Loss::Huber => Objective::Huber { delta: self.diffusion.huber_delta },
            Loss::Vlb => Objective::Bound,
        }
    }

    /// What time steps count for.
    pub fn weights(&self) -> Weights {
        let d = &self.diffusion;
        let of = |weighting, gamma| Weights { weighting, gamma, k: d.p2_k };
        match d.weighting {
            Weighting::Uniform | Weighting::MinSnr if d.min_snr_gamma > 0.0 => of(Weighting::MinSnr, d.min_snr_gamma),
            weighting => of(weighting, d.p2_gamma),
        }
    }

    /// Images that are in memory at once: the micro-batch, or the whole batch.
    pub fn images_at_once(&self) -> usize {
        match self.train.micro_batch {
            0 => self.train.batch,
            n => n,
        }
    }
}
