//! How pictures are drawn: the flags that all commands with a sampler share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Which weights a model is used with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WeightsName {
    /// The moving average
    Ema,
    /// The weights of the last step
    Raw,
    /// The moving average as it was at an earlier step, where the run keeps it (--set ema.early=STEP)
    Early,
}

/// Sampler, classes, seed and weights.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Drawing")]
pub(crate) struct How {
    /// Pictures that are in memory at once; results do not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) batch: Option<u64>,
    /// ddpm, ddim, pndm, dpm++2m, dpm++3m, dpm++sde, euler, euler-a, heun, unipc or lms; by default ddim, or what a diffusers
    /// folder with another scheduler than DDPM's says
    #[arg(long, value_name = "NAME")]
    pub(crate) sampler: Option<String>,
    /// Steps from noise to picture; by default 50, and all for ddpm
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) steps: Option<u64>,
    /// Share of an ancestral step's noise in ddim: 0 is deterministic
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    pub(crate) eta: f64,
    /// Noise that heun adds and removes again over the whole run (Karras et al. 2022: S_churn)
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    pub(crate) churn: f64,
    /// Which time steps are visited: leading, linspace (or linear), trailing or quad; or noise levels: karras or exponential
    #[arg(long, value_name = "NAME")]
    pub(crate) spacing: Option<String>,
    /// Bound the predicted picture at this quantile of its own pixels instead of clipping it (Saharia et al. 2022: 0.995)
    #[arg(long, value_name = "QUANTILE")]
    pub(crate) threshold: Option<f64>,
    /// Leave the predicted picture as it is
    #[arg(long, conflicts_with = "threshold")]
    pub(crate) no_clip: bool,
    /// Where all randomness comes from
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// What to draw: a class by number or name, several with commas between, all, or none
    #[arg(long, value_name = "K[,K…]|all|none")]
    pub(crate) class: Option<String>,
    /// Strength of classifier-free guidance: 0 ignores the class, 1 follows it, more exaggerates it
    #[arg(long, value_name = "W", allow_negative_numbers = true, group = "guided")]
    pub(crate) guidance: Option<f64>,
    /// Strength of guidance away from a weaker model, the run's early weights or --weaker: 1 is none, 2 to 3 make up for a short
    /// training, and no classes are needed (Karras et al. 2024)
    #[arg(long, value_name = "W", allow_negative_numbers = true, group = "guided")]
    pub(crate) autoguidance: Option<f64>,
    /// The weaker model: an earlier checkpoint, or a smaller network for the same pictures
    #[arg(long, value_name = "MODEL", requires = "autoguidance")]
    pub(crate) weaker: Option<PathBuf>,
    /// How far guided predictions are scaled back to the spread of unguided ones, 0 to 1 (Lin et al. 2024)
    #[arg(long, value_name = "X", default_value_t = 0.0, requires = "guided")]
    pub(crate) guidance_rescale: f64,
    /// Time steps at which guidance acts, both included (Kynkäänniemi et al. 2024)
    #[arg(long, value_name = "FROM..TO", requires = "guided")]
    pub(crate) guidance_interval: Option<String>,
    /// The class that stands for none, where the model does not say
    #[arg(long, value_name = "K")]
    pub(crate) null_class: Option<usize>,
    /// Which weights
    #[arg(long, value_enum, default_value = "ema")]
    pub(crate) weights: WeightsName,
}
