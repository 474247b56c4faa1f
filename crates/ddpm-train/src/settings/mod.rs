//! Settings: everything that a run can be told, in sections.
//!
//! A value comes from the preset, unless a file says otherwise, unless `--set section.name=value` or a flag does:
//! [`Layers`] keeps what was said above the preset, checks each value when it comes (unknown keys are answered with the
//! nearest known one, ranges with what is allowed) and lays it over a preset.

mod diff;
mod error;
mod key;
mod layers;
mod network;
mod sections;
#[cfg(test)]
mod tests;
mod text;

use serde::{Deserialize, Serialize};

pub use self::{
    diff::{Change, Resume},
    error::SettingsError,
    key::{Allowed, Key, NameOf, Origin, Range},
    layers::Layers,
    sections::{
        CheckpointSettings, DataSettings, DiffusionSettings, EmaSettings, EvalSettings, LogSettings, Loss,
        NetworkSettings, OptimiserSettings, PreviewSettings, TrainSettings,
    },
};

/// Everything a run can be told. Each field is a section of `config.toml`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The run: steps, batch, seed.
    pub train: TrainSettings,
    /// What is learned from.
    pub data: DataSettings,
    /// The U-Net.
    pub network: NetworkSettings,
    /// The diffusion process, the loss and the reverse steps.
    pub diffusion: DiffusionSettings,
    /// How weights follow from gradients.
    pub optimiser: OptimiserSettings,
    /// The moving average of the weights.
    pub ema: EmaSettings,
    /// When a checkpoint is written and how many stay.
    pub checkpoint: CheckpointSettings,
    /// What is written to `metrics.jsonl`.
    pub log: LogSettings,
    /// Pictures and the held-out loss while training.
    pub preview: PreviewSettings,
    /// Scores while training.
    pub eval: EvalSettings,
}

/// The sections' names and meanings, in the order in which they are written.
pub const SECTIONS: &[(&str, &str)] = &[
    ("train", "The run."),
    ("data", "What is learned from."),
    ("network", "The U-Net: the options of diffusers' UNet2DModel; channels and classes follow from the data."),
    ("diffusion", "The diffusion process, the loss and the reverse steps."),
    ("optimiser", "How weights follow from gradients."),
    ("ema", "The moving average of the weights, which samples best."),
    ("checkpoint", "When a checkpoint is written and how many stay."),
    ("log", "What is written to metrics.jsonl."),
    ("preview", "Pictures and the held-out loss while training, and the pictures at its end."),
    (
        "eval",
        "Scores while training, of the averaged weights' pictures against the training data: fid and is in metrics.jsonl.",
    ),
];

/// Every setting, in the order of [`SECTIONS`].
pub fn keys() -> Vec<Key> {
    [
        TrainSettings::keys(),
        DataSettings::keys(),
        NetworkSettings::keys(),
        DiffusionSettings::keys(),
        OptimiserSettings::keys(),
        EmaSettings::keys(),
        CheckpointSettings::keys(),
        LogSettings::keys(),
        PreviewSettings::keys(),
        EvalSettings::keys(),
    ]
    .concat()
}
