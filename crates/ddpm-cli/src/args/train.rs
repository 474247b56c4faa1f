//! Arguments of `train`.

use std::path::PathBuf;

use clap::Args;
use ddpm_train::settings::{Layers, Origin, SettingsError};

use super::{Machine, Talk};

/// What to train, on what, where.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ddpm train                                         the digits that the program brings
  ddpm train --preset emoji --out runs/smileys       a class-conditional model of emoji
  ddpm train --data photos/ --set data.size=64       your own pictures; the network follows from them
  ddpm train --preset cifar10 --data cifar-10-batches-bin/ --micro-batch 16
  ddpm train --resume                                go on with the newest run
  ddpm train --resume --out runs/digits --steps 3000 and for longer

Every setting, with its meaning: ddpm config --preset digits")]
pub(crate) struct TrainArgs {
    /// A preset: digits, emoji, cifar10, celebahq256, lsun256, or another program's settings, such as improved-cifar10,
    /// ddim-celeba64, bubbliiiing, compvis or lucidrains
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,
    /// A file of settings, laid over the preset
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
    /// A folder of pictures, an .npz, .npy, IDX or CIFAR file, bundled:digits or bundled:emoji
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// The run's folder; by default the next free one in runs/
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Updates of the weights (train.steps)
    #[arg(long, value_name = "N")]
    pub(crate) steps: Option<i64>,
    /// Pictures an update learns from (train.batch)
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<i64>,
    /// Pictures that are in memory at once (train.micro_batch)
    #[arg(long, value_name = "N")]
    pub(crate) micro_batch: Option<i64>,
    /// Where all randomness comes from (train.seed)
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<i64>,
    /// Start from the weights of this model instead of random ones
    #[arg(long, value_name = "MODEL", conflicts_with = "resume")]
    pub(crate) init_from: Option<PathBuf>,
    /// Go on with a run: that of --out, else the newest in runs/
    #[arg(long)]
    pub(crate) resume: bool,
    /// Save and stop at this step, without changing what the run was set to do
    #[arg(long, value_name = "N")]
    pub(crate) stop_at: Option<u64>,
    /// One setting that overrides all others; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

impl TrainArgs {
    /// What was said about settings, in the order of who wins: file, `--set`, flags. The file's text is the caller's to
    /// read; a path of data is made absolute, so that the run can be resumed from elsewhere.
    pub(crate) fn layers(&self, file: Option<(&str, &str)>) -> Result<Layers, SettingsError> {
        let mut layers = Layers::new();
        if let Some((text, path)) = file {
            layers.file(text, path)?;
        }
        for text in &self.set {
            layers.set(text)?;
        }
        let flags = [
            ("train.steps", "--steps", self.steps),
            ("train.batch", "--batch", self.batch),
            ("train.micro_batch", "--micro-batch", self.micro_batch),
            ("train.seed", "--seed", self.seed),
        ];
        for (key, flag, value) in flags {
            if let Some(value) = value {
                layers.value(key, value, Origin::Flag(flag))?;
            }
        }
        if let Some(path) = &self.data {
            layers.value("data.path", path.to_string_lossy().into_owned(), Origin::Flag("--data"))?;
        }
        Ok(layers)
    }
}
