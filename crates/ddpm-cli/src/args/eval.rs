//! Arguments of `eval`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{How, Machine, Talk};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Measure {
    /// Negative log-likelihood of data, in bits per dimension
    Nll,
    /// Fréchet distance between features of the model's pictures and of data
    Fid,
    /// Kernel distance between them
    Kid,
    /// Inception score of the model's pictures
    Is,
    /// Precision, recall, density and coverage
    Pr,
    /// Fréchet distance between features that still have places
    Sfid,
}

/// Which part of the data a model is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Split {
    /// What was trained on
    Train,
    /// What was held out
    Heldout,
    /// All of it
    All,
}

/// Arguments of `eval`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  ddpm eval nll runs/digits -n 100                   bits per dimension of held-out pictures, term by term
  ddpm eval nll runs/digits --curve curve.svg        and the rate-distortion curve
  ddpm eval nll runs/digits --ode -n 16              by the probability-flow ODE
  ddpm eval nll google-ddpm-cifar10-32 --data cifar/ -n 64
  ddpm eval fid runs/digits --split train            1000 new digits against those it learned from
  ddpm eval fid google-ddpm-cifar10-32 -n 50000 --features inception.safetensors --reference cifar10-32x32.npz
  ddpm eval pr runs/digits                           precision, recall, density and coverage")]
pub(crate) struct EvalArgs {
    /// What is measured
    #[arg(value_enum)]
    pub(crate) measure: Measure,
    /// A run's folder, one of its checkpoints, or a diffusers folder
    pub(crate) model: PathBuf,
    /// What the model is held against; by default the run's own data
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Which part of it; by default what was held out, and all of what --data names
    #[arg(long, value_enum)]
    pub(crate) split: Option<Split>,
    /// Number of pictures: the first of the data for nll (by default 100), the model's for the others (by default 1000)
    #[arg(short = 'n', long = "count", value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) n: Option<u64>,
    /// The feature network: Inception-v3 in the names of pytorch-fid; by default the program's own classifier, for 28x28x1 digits
    #[arg(long, value_name = "FILE.safetensors")]
    pub(crate) features: Option<PathBuf>,
    /// Statistics of the data's features for fid and sfid: mu and sigma, m2 and s2, or images in arr_0
    #[arg(long, value_name = "FILE.npz", conflicts_with_all = ["data", "split"])]
    pub(crate) reference: Option<PathBuf>,
    /// Where the statistics of the data's features go, for --reference of later runs
    #[arg(long, value_name = "FILE.npz", conflicts_with = "reference")]
    pub(crate) write_reference: Option<PathBuf>,
    /// nll by the probability-flow ODE instead of the bound (Song et al. 2021): exact for the network, some 200 passes a picture
    #[arg(long)]
    pub(crate) ode: bool,
    /// Where the rate-distortion curve of nll goes
    #[arg(long, value_name = "X.csv|png|svg", conflicts_with = "ode")]
    pub(crate) curve: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) how: How,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) talk: Talk,
}
