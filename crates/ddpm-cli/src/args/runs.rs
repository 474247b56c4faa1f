//! Arguments of the commands that look at runs.

use std::path::PathBuf;

use clap::Args;

use super::{Machine, Talk};

/// Arguments of `plot`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ddpm plot runs/digits --out curves.svg
  ddpm plot runs/digits runs/digits-2 runs/digits-3 --out curves.png
  ddpm plot runs/* --curves loss,images_per_s --out curves.svg")]
pub(crate) struct PlotArgs {
    /// Folders of runs, finished or not
    #[arg(required = true, value_name = "RUN")]
    pub(crate) runs: Vec<PathBuf>,
    /// What is drawn, a panel each: keys of metrics.jsonl. By default loss, heldout_loss_ema, lr and grad_norm
    #[arg(long, value_name = "KEY[,KEY…]", value_delimiter = ',')]
    pub(crate) curves: Vec<String>,
    /// A .svg or .png file
    #[arg(long, value_name = "X.svg|X.png")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// Arguments of `reproduce`.
#[derive(Debug, Args)]
#[command(after_help = "\
Parts, by the names that they have in the paper:
  table1   Inception score, FID, bits per dimension of an unconditional model
  table2   what is predicted (μ̃, ε) and what is minimised (L, L_simple), scored: six models
  table4   rate and distortion at ten times
  fig4     a grid of samples
  fig5     rate and distortion over time, and over each other
  fig6     x̂_0 while pictures are generated
  fig7     pictures that share an x_t
  fig8     interpolations by half of the time steps
  fig9     interpolations by more and fewer time steps

What was trained and measured stays in the folder: a command that was stopped goes on where it was.

Examples:
  ddpm reproduce fig6                          x̂_0 while digits are generated
  ddpm reproduce fig7 --budget 5               pictures that share an x_t, by five minutes of training
  ddpm reproduce table2 --budget 30            six models of digits, five minutes each, and their scores
  ddpm reproduce fig5 --model runs/digits      the rate-distortion curve of a model that is there
  ddpm reproduce fig8 --preset cifar10 --data cifar-10-batches-bin/
  ddpm reproduce table1 --preset emoji --features inception.safetensors")]
pub(crate) struct ReproduceArgs {
    /// table1, table2, table4 or fig4 to fig9: see below
    #[arg(value_name = "PART")]
    pub(crate) name: String,
    /// What is trained first, if it has not been
    #[arg(long, value_name = "NAME", default_value = "digits")]
    pub(crate) preset: String,
    /// A model that is there, instead of one that is trained: a run's folder, one of its checkpoints, or a diffusers folder
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["preset", "budget", "set"])]
    pub(crate) model: Option<PathBuf>,
    /// The data, where the program does not bring them or the model does not say them
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Minutes of training at most, of all models of a table together; all of the preset's steps where they fit
    #[arg(long, value_name = "MINUTES", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) budget: u64,
    /// One setting of the preset that is another here; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// The folder for models and results, which a second part finds again; by default runs/reproduce-NAME
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Pictures of each model that tables score
    #[arg(short = 'n', long = "count", value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=100_000_000))]
    pub(crate) n: u64,
    /// Steps from noise to picture; by default all, as in the paper
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) steps: Option<u64>,
    /// Pictures whose likelihood is measured
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) nll_count: u64,
    /// The feature network of tables: Inception-v3 in the names of pytorch-fid; by default the program's own classifier, for 28x28x1 digits
    #[arg(long, value_name = "FILE.safetensors")]
    pub(crate) features: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) talk: Talk,
}
