//! What a U-Net is: the options of diffusers' `UNet2DModel`, under diffusers' names.
//!
//! A configuration is plain data. [`UNetConfig::from_json`] reads the text of a diffusers `config.json`,
//! [`UNetConfig::to_json`] writes one that diffusers loads, and [`UNetConfig::validate`] says, before anything is
//! built, whether the numbers fit each other and an image size. A missing key means the default of diffusers' class,
//! an unknown key is ignored, and a value whose meaning is not built here is an error that names key and value.

mod validate;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// The class name that diffusers writes into `config.json`.
pub const DIFFUSERS_CLASS: &str = "UNet2DModel";

/// The release of diffusers whose defaults and meaning are followed; written into `config.json`.
pub const DIFFUSERS_VERSION: &str = "0.42.1";

/// Options of a `UNet2DModel`. Field names, meanings and defaults are those of diffusers 0.42.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct UNetConfig {
    /// Height and width the network was made for, pixels; `None` where it was never said.
    pub sample_size: Option<SampleSize>,
    /// Channels of the image that comes in, ≥ 1.
    pub in_channels: usize,
    /// Channels of the prediction, ≥ 1; twice the image's where the variance is predicted too.
    pub out_channels: usize,
    /// Whether the input is mapped to `2x − 1` first.
    pub center_input_sample: bool,
    /// How a time step becomes a vector.
    pub time_embedding_type: TimeEmbeddingType,
    /// Width of the time embedding after its two dense layers; `None` is four times the first level's channels.
    pub time_embedding_dim: Option<usize>,
    /// Frequencies are `exp(−i · ln(10000) / (half − freq_shift))`: 1 in the paper's code, 0 by default in diffusers.
    pub freq_shift: i64,
    /// `false`: `[sin, cos]` (the paper's code); `true`: `[cos, sin]`.
    pub flip_sin_to_cos: bool,
    /// One entry a level, from the image's resolution downwards.
    pub down_block_types: Vec<DownBlock>,
    /// What stands between the way down and the way up.
    pub mid_block_type: MidBlock,
    /// One entry a level; entry 0 is the *lowest* resolution.
    pub up_block_types: Vec<UpBlock>,
    /// Channels of each level, from the image's resolution downwards; each a multiple of `norm_num_groups`.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks a level on the way down, ≥ 1; the way up has one more.
    pub layers_per_block: usize,
    /// The outputs of the middle's blocks are divided by this, ≠ 0.
    pub mid_block_scale_factor: f64,
    /// 1: one row and column of zeros on all sides; 0: one row below and one column to the right (the paper's code).
    pub downsample_padding: usize,
    /// Only a strided convolution.
    pub downsample_type: Resample,
    /// Only nearest-neighbour doubling and a convolution.
    pub upsample_type: Resample,
    /// Probability that a value inside a residual block is dropped in training, `[0, 1)`.
    pub dropout: f64,
    /// The activation function.
    pub act_fn: Activation,
    /// Channels of one attention head; `None` is a single head as wide as the level.
    pub attention_head_dim: Option<usize>,
    /// Groups of every group normalisation.
    pub norm_num_groups: usize,
    /// Groups of the middle's attention; `None` is `norm_num_groups`, or no normalisation at all with `scale_shift`.
    pub attn_norm_num_groups: Option<usize>,
    /// Added to the variance in every normalisation, > 0.
    pub norm_eps: f64,
    /// How the time embedding enters a residual block.
    pub resnet_time_scale_shift: TimeScaleShift,
    /// Whether the middle block attends; the levels' attention is said by the block types.
    pub add_attention: bool,
    /// How a class label becomes a vector, where it is not a learned table.
    pub class_embed_type: Option<ClassEmbedType>,
    /// Rows of the learned table of classes; `None` is a network without one.
    pub num_class_embeds: Option<usize>,
}

impl Default for UNetConfig {
    fn default() -> Self {
        Self {
            sample_size: None,
            in_channels: 3,
            out_channels: 3,
            center_input_sample: false,
            time_embedding_type: TimeEmbeddingType::Positional,
            time_embedding_dim: None,
            freq_shift: 0,
            flip_sin_to_cos: true,
            down_block_types: vec![DownBlock::Plain, DownBlock::Attention, DownBlock::Attention, DownBlock::Attention],
            mid_block_type: MidBlock::Plain,
            up_block_types: vec![UpBlock::Attention, UpBlock::Attention, UpBlock::Attention, UpBlock::Plain],
            block_out_channels: vec![224, 448, 672, 896],
            layers_per_block: 2,
            mid_block_scale_factor: 1.0,
            downsample_padding: 1,
            downsample_type: Resample::Convolution,
            upsample_type: Resample::Convolution,
            dropout: 0.0,
            act_fn: Activation::Silu,
            attention_head_dim: Some(8),
            norm_num_groups: 32,
            attn_norm_num_groups: None,
            norm_eps: 1e-5,
            resnet_time_scale_shift: TimeScaleShift::Default,
            add_attention: true,
            class_embed_type: None,
            num_class_embeds: None,
        }
    }
}

/// An image size: one number for a square, or `[height, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SampleSize {
    /// Height and width are equal.
    Square(usize),
    /// `[height, width]`.
    Pair([usize; 2]),
}

impl SampleSize {
    /// The shortest form of a height and a width.
    pub fn new(height: usize, width: usize) -> Self {
        if height == width { Self::Square(height) } else { Self::Pair([height, width]) }
    }

    /// Rows, pixels.
    pub fn height(self) -> usize {
        match self {
            Self::Square(side) => side,
            Self::Pair([height, _]) => height,
        }
    }

    /// Columns, pixels.
    pub fn width(self) -> usize {
        match self {
            Self::Square(side) => side,
            Self::Pair([_, width]) => width,
        }
    }
}

/// How a time step becomes a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeEmbeddingType {
    /// Sines and cosines of geometric frequencies.
    Positional,
    /// Sines and cosines of ln t times fixed random frequencies, and a prediction divided by t: for networks that are told noise levels,
    /// which are above 0 (Song et al. 2021, "Score-based generative modeling through SDEs").
    Fourier,
}

/// A level on the way down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownBlock {
    /// Residual blocks only.
    #[serde(rename = "DownBlock2D")]
    Plain,
    /// Attention after every residual block.
    #[serde(rename = "AttnDownBlock2D")]
    Attention,
}

/// The middle of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MidBlock {
    /// Residual block, attention (if `add_attention`), residual block.
    #[serde(rename = "UNetMidBlock2D")]
    Plain,
}

/// A level on the way up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpBlock {
    /// Residual blocks only.
    #[serde(rename = "UpBlock2D")]
    Plain,
    /// Attention after every residual block.
    #[serde(rename = "AttnUpBlock2D")]
    Attention,
}

/// How the resolution changes between levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resample {
    /// A 3x3 convolution: of stride 2 on the way down, after doubling on the way up.
    #[serde(rename = "conv")]
    Convolution,
}

/// The activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// `x · sigmoid(x)`; `swish` is another name of it.
    #[serde(rename = "silu", alias = "swish")]
    Silu,
}

/// How the time embedding enters a residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeScaleShift {
    /// Added per channel before the second normalisation.
    Default,
    /// `norm(h) · (1 + scale) + shift`, both from the time embedding.
    ScaleShift,
}

/// How a class label becomes a vector, where it is not a learned table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassEmbedType {
    /// The label goes through sines, cosines and two dense layers, as a time step does.
    Timestep,
    /// The label *is* the vector, as long as the time embedding.
    Identity,
}

/// Why a configuration cannot be built.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is no JSON object.
    #[error("network configuration: expected a JSON object, got {got}")]
    NotAnObject {
        /// What the parser said, or what kind of value came.
        got: String,
    },
    /// A value that is not built, or not of the right kind.
    #[error("network configuration: {key} = {value} is not supported; expected {expected}")]
    Unsupported {
        /// The option.
        key: String,
        /// What it was set to.
        value: String,
        /// What can be built.
        expected: String,
    },
    /// A value that contradicts another one.
    #[error("network configuration: {key} = {value}: {why}")]
    Mismatch {
        /// The option.
        key: &'static str,
        /// What it was set to.
        value: String,
        /// Which rule it breaks.
        why: String,
    },
    /// An image size that the levels do not halve evenly.
    #[error(
        "network configuration: images of {height}x{width} (height x width) cannot be halved {halvings} times; \
         {axis} must be a multiple of {multiple}: the nearest that fit are {nearest}"
    )]
    Size {
        /// Rows asked for.
        height: usize,
        /// Columns asked for.
        width: usize,
        /// How often the levels halve the image.
        halvings: usize,
        /// `height`, `width` or both.
        axis: &'static str,
        /// What height and width must be a multiple of.
        multiple: usize,
        /// The nearest sizes that fit.
        nearest: String,
    },
}

impl UNetConfig {
    /// Reads the text of a diffusers `config.json`. Missing keys take diffusers' defaults, unknown ones are ignored.
    ///
    /// # Errors
    /// [`ConfigError::NotAnObject`] where the text is no JSON object, [`ConfigError::Unsupported`] where a known key
    /// has a value that is not built here. The numbers are not yet compared with each other: see [`Self::validate`].
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let value: Value = serde_json::from_str(text).map_err(|e| ConfigError::NotAnObject { got: e.to_string() })?;
        match value {
            Value::Object(map) => Self::try_from(map),
            other => Err(ConfigError::NotAnObject { got: shorten(&other) }),
        }
    }

    /// The text of a `config.json` that diffusers loads; [`Self::from_json`] reads it back unchanged.
    pub fn to_json(&self) -> String {
        let mut map = Map::new();
        map.insert("_class_name".into(), DIFFUSERS_CLASS.into());
        map.insert("_diffusers_version".into(), DIFFUSERS_VERSION.into());
        if let Ok(Value::Object(fields)) = serde_json::to_value(self) {
            map.extend(fields);
        }
        // A map of strings, numbers and lists always has a text.
        serde_json::to_string_pretty(&Value::Object(map)).unwrap_or_default() + "\n"
    }

    /// Number of resolutions.
    pub fn levels(&self) -> usize {
        self.block_out_channels.len()
    }

    /// Height and width must be multiples of this: `2^(levels − 1)`.
    pub fn size_multiple(&self) -> usize {
        1 << self.levels().saturating_sub(1).min(30)
    }

    /// Width of the time embedding, by default four times the first level's channels.
    pub fn embedding_dim(&self) -> usize {
        self.time_embedding_dim.unwrap_or_else(|| 4 * self.block_out_channels.first().copied().unwrap_or(0))
    }

    /// Heads of an attention over `channels` channels: one, or `channels / attention_head_dim`.
    pub fn heads(&self, channels: usize) -> usize {
        self.attention_head_dim.map_or(1, |dim| (channels / dim.max(1)).max(1))
    }

    /// Groups of the middle attention's normalisation, `None` where it has none.
    pub fn mid_attention_groups(&self) -> Option<usize> {
        self.attn_norm_num_groups.or(match self.resnet_time_scale_shift {
            TimeScaleShift::Default => Some(self.norm_num_groups),
            TimeScaleShift::ScaleShift => None,
        })
    }

    /// Whether the network wants a class label with every image.
    pub fn is_class_conditional(&self) -> bool {
        self.class_embed_type.is_some() || self.num_class_embeds.is_some()
    }
}

/// Takes options one by one out of a JSON object, so that an error can name its key.
struct Reader {
    map: Map<String, Value>,
}

impl Reader {
    fn take<T: DeserializeOwned>(&mut self, key: &str, default: T, expected: &str) -> Result<T, ConfigError> {
        match self.map.remove(key) {
            None => Ok(default),
            Some(value) => serde_json::from_value(value.clone()).map_err(|_| ConfigError::Unsupported {
                key: key.into(),
                value: shorten(&value),
                expected: expected.into(),
            }),
        }
    }
}

/// A value as text, cut where a hostile file made it long.
fn shorten(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl TryFrom<Map<String, Value>> for UNetConfig {
    type Error = ConfigError;

    fn try_from(map: Map<String, Value>) -> Result<Self, ConfigError> {
        let mut reader = Reader { map };
        let r = &mut reader;
        let class: String = r.take("_class_name", DIFFUSERS_CLASS.into(), "\"UNet2DModel\"")?;
        // The name of the class in the first releases, with the same options.
        if class != DIFFUSERS_CLASS && class != "UNetUnconditionalModel" {
            let value = shorten(&class.into());
            return Err(ConfigError::Unsupported {
                key: "_class_name".into(),
                value,
                expected: format!("\"{DIFFUSERS_CLASS}\""),
            });
        }
        let d = Self::default();
        let count = "a whole number";
        let count_or_null = "a whole number or null";
        Ok(Self {
            sample_size: r.take("sample_size", d.sample_size, "a whole number, a pair [height, width] or null")?,
            in_channels: r.take("in_channels", d.in_channels, count)?,
            out_channels: r.take("out_channels", d.out_channels, count)?,
            center_input_sample: r.take("center_input_sample", d.center_input_sample, "true or false")?,
            time_embedding_type: r.take("time_embedding_type", d.time_embedding_type, "\"positional\"")?,
            time_embedding_dim: r.take("time_embedding_dim", d.time_embedding_dim, count_or_null)?,
            freq_shift: r.take("freq_shift", d.freq_shift, count)?,
            flip_sin_to_cos: r.take("flip_sin_to_cos", d.flip_sin_to_cos, "true or false")?,
            down_block_types: r.take(
                "down_block_types",
                d.down_block_types,
                "a list of \"DownBlock2D\" and \"AttnDownBlock2D\"",
            )?,
            mid_block_type: r.take("mid_block_type", d.mid_block_type, "\"UNetMidBlock2D\"")?,
            up_block_types: r.take(
                "up_block_types",
                d.up_block_types,
                "a list of \"UpBlock2D\" and \"AttnUpBlock2D\"",
            )?,
            block_out_channels: r.take("block_out_channels", d.block_out_channels, "a list of whole numbers")?,
            layers_per_block: r.take("layers_per_block", d.layers_per_block, count)?,
            mid_block_scale_factor: r.take("mid_block_scale_factor", d.mid_block_scale_factor, "a number")?,
            downsample_padding: r.take("downsample_padding", d.downsample_padding, "0 or 1")?,
            downsample_type: r.take("downsample_type", d.downsample_type, "\"conv\"")?,
            upsample_type: r.take("upsample_type", d.upsample_type, "\"conv\"")?,
            dropout: r.take("dropout", d.dropout, "a number from 0 up to 1")?,
            act_fn: r.take("act_fn", d.act_fn, "\"silu\" or \"swish\"")?,
            attention_head_dim: r.take("attention_head_dim", d.attention_head_dim, count_or_null)?,
            norm_num_groups: r.take("norm_num_groups", d.norm_num_groups, count)?,
            attn_norm_num_groups: r.take("attn_norm_num_groups", d.attn_norm_num_groups, count_or_null)?,
            norm_eps: r.take("norm_eps", d.norm_eps, "a number above 0")?,
            resnet_time_scale_shift: r.take(
                "resnet_time_scale_shift",
                d.resnet_time_scale_shift,
                "\"default\" or \"scale_shift\"",
            )?,
            add_attention: r.take("add_attention", d.add_attention, "true or false")?,
            class_embed_type: r.take(
                "class_embed_type",
                d.class_embed_type,
                "\"timestep\", \"identity\" or null (with num_class_embeds: a learned table)",
            )?,
            num_class_embeds: r.take("num_class_embeds", d.num_class_embeds, count_or_null)?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
