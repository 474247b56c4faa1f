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
Examples:
  ddpm reproduce fig6                          x̂_0 while digits are generated
  ddpm reproduce fig7 --budget 5               pictures that share an x_t, by five minutes of training
  ddpm reproduce fig8 --preset cifar10 --data cifar-10-batches-bin/")]
pub(crate) struct ReproduceArgs {
    /// fig6 (progressive generation), fig7 (samples that share x_t) or fig8 (interpolation)
    pub(crate) name: String,
    /// What is trained first, if it has not been
    #[arg(long, value_name = "NAME", default_value = "digits")]
    pub(crate) preset: String,
    /// The preset's data, where the program does not bring them
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Minutes of training at most; all of the preset's steps where they fit
    #[arg(long, value_name = "MINUTES", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) budget: u64,
    /// The folder for the model and the figures, which a second figure finds again; by default runs/reproduce-NAME
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) talk: Talk,
}
