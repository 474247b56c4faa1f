//! Whether the options of a network fit each other and the size of the images.

use std::fmt;

use super::{ConfigError, DownBlock, UNetConfig, UpBlock};

impl UNetConfig {
    /// Whether the options fit each other and images of `height` x `width` pixels.
    ///
    /// # Errors
    /// [`ConfigError::Mismatch`] names the first option that contradicts another; [`ConfigError::Size`] names the
    /// nearest sizes that fit.
    pub fn validate(&self, height: usize, width: usize) -> Result<(), ConfigError> {
        self.validate_levels()?;
        self.validate_channels()?;
        self.validate_ranges()?;
        self.validate_size(height, width)
    }

    fn validate_levels(&self) -> Result<(), ConfigError> {
        let levels = self.levels();
        if levels == 0 || levels > 16 {
            return mismatch("block_out_channels", &self.block_out_channels, "between 1 and 16 levels are needed");
        }
        let lists = [("down_block_types", self.down_block_types.len()), ("up_block_types", self.up_block_types.len())];
        for (key, len) in lists {
            if len != levels {
                let why = format!("one entry for each of the {levels} levels of block_out_channels is needed");
                return mismatch(key, &format_args!("{len} entries"), why);
            }
        }
        Ok(())
    }

    fn validate_channels(&self) -> Result<(), ConfigError> {
        let counts = [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("layers_per_block", self.layers_per_block),
            ("norm_num_groups", self.norm_num_groups),
            ("attention_head_dim", self.attention_head_dim.unwrap_or(1)),
            ("attn_norm_num_groups", self.attn_norm_num_groups.unwrap_or(1)),
            ("time_embedding_dim", self.time_embedding_dim.unwrap_or(1)),
            ("num_class_embeds", self.num_class_embeds.unwrap_or(1)),
        ];
        for (key, count) in counts {
            if count == 0 || count > 1 << 20 {
                return mismatch(key, &count, "must be between 1 and 1048576");
            }
        }
        let groups = self.norm_num_groups;
        for (level, &channels) in self.block_out_channels.iter().enumerate() {
            if channels == 0 || channels > 1 << 16 {
                return mismatch("block_out_channels", &self.block_out_channels, "each must be between 1 and 65536");
            }
            if channels % groups != 0 {
                let why = format!("level {level} has {channels} channels, which {groups} groups do not divide");
                return mismatch("norm_num_groups", &groups, why);
            }
            let attends = self.down_block_types[level] == DownBlock::Attention
                || self.up_block_types[self.levels() - 1 - level] == UpBlock::Attention
                || (level + 1 == self.levels() && self.add_attention);
            if let Some(dim) = self.attention_head_dim
                && attends
                && channels % dim != 0
            {
                let why = format!("level {level} has {channels} channels, which heads of {dim} do not divide");
                return mismatch("attention_head_dim", &dim, why);
            }
        }
        let last = self.block_out_channels[self.levels() - 1];
        if let Some(groups) = self.attn_norm_num_groups
            && self.add_attention
            && !last.is_multiple_of(groups)
        {
            let why = format!("the middle has {last} channels, which {groups} groups do not divide");
            return mismatch("attn_norm_num_groups", &groups, why);
        }
        Ok(())
    }

    fn validate_ranges(&self) -> Result<(), ConfigError> {
        let half = (self.block_out_channels[0] / 2) as i64;
        if self.freq_shift < 0 || self.freq_shift >= half {
            let why = format!("must be at least 0 and below half the first level's channels, {half}");
            return mismatch("freq_shift", &self.freq_shift, why);
        }
        if self.downsample_padding > 1 {
            return mismatch("downsample_padding", &self.downsample_padding, "must be 0 or 1");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return mismatch("dropout", &self.dropout, "must be at least 0 and below 1");
        }
        if !(self.norm_eps > 0.0 && self.norm_eps <= 1.0) {
            return mismatch("norm_eps", &self.norm_eps, "must be above 0 and at most 1");
        }
        if !self.mid_block_scale_factor.is_finite() || self.mid_block_scale_factor == 0.0 {
            return mismatch("mid_block_scale_factor", &self.mid_block_scale_factor, "must be finite and not 0");
        }
        Ok(())
    }

    fn validate_size(&self, height: usize, width: usize) -> Result<(), ConfigError> {
        let multiple = self.size_multiple();
        let fits = |side: usize| side > 0 && side.is_multiple_of(multiple);
        let axis = match (fits(height), fits(width)) {
            (true, true) => return Ok(()),
            (false, true) => "height",
            (true, false) => "width",
            (false, false) => "height and width",
        };
        let around = |side: usize| {
            let below = side / multiple * multiple;
            let above = if fits(side) { below } else { below + multiple };
            [below, above]
        };
        let ([h0, h1], [w0, w1]) = (around(height), around(width));
        let mut nearest = Vec::new();
        for (h, w) in [(h0, w0), (h1, w1)] {
            let text = format!("{h}x{w}");
            if h > 0 && w > 0 && !nearest.contains(&text) {
                nearest.push(text);
            }
        }
        let nearest = nearest.join(" and ");
        Err(ConfigError::Size { height, width, halvings: self.levels() - 1, axis, multiple, nearest })
    }
}

fn mismatch<T>(key: &'static str, value: &dyn fmt::Debug, why: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Mismatch { key, value: format!("{value:?}"), why: why.into() })
}
