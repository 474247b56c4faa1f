//! Arguments of the commands that work on a model.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{How, Machine, Talk, WeightsName};

/// What a film shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FilmName {
    /// The noisy picture
    Xt,
    /// The picture that the network sees in it
    X0,
}

/// Arguments of `sample`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ddpm sample runs/digits --out grid.png                     16 pictures in a grid
  ddpm sample runs/digits -n 64 --sampler ddpm --out film.gif all 1000 steps of the paper, as a film
  ddpm sample runs/digits --sampler dpm++2m --steps 20 --spacing karras --out grid.png
  ddpm sample runs/emoji --class 3 --out food.png            one class
  ddpm sample runs/emoji --class all --guidance 3 --out grid.png   a column for each class
  ddpm sample runs/digits --film x0 --out film.gif           what the network sees in the noise
  ddpm sample google-ddpm-cifar10-32 -n 4 --out samples/     a folder of numbered PNGs
  ddpm sample runs/digits --out x.npy                        numbers as the sampler left them")]
pub(crate) struct SampleArgs {
    /// A run's folder, one of its checkpoints, or a diffusers folder
    pub(crate) model: PathBuf,
    /// Number of pictures; by default 16, or for several classes as many more as make every row of the grid whole
    #[arg(short = 'n', long = "count", value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) n: Option<u64>,
    /// Standard normal latents (N,H,W,C) to start from, instead of the seed's
    #[arg(long, value_name = "x_T.npy")]
    pub(crate) noise: Option<PathBuf>,
    /// What a .gif shows of each step
    #[arg(long, value_enum, default_value = "xt")]
    pub(crate) film: FilmName,
    #[command(flatten)]
    pub(crate) how: How,
    /// A .png (one picture, or a grid), .gif, .npy or .npz file, or a folder for numbered PNGs
    #[arg(long, value_name = "X")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// Arguments of `predict`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ddpm predict runs/digits --input x.npy --timesteps t.npy --output y.npy
  ddpm predict unet/ --input x.npy --timesteps t.npy --output y.npy --target eps.npy --gradients g.npz")]
pub(crate) struct PredictArgs {
    /// A run's folder, one of its checkpoints, or a diffusers folder
    pub(crate) model: PathBuf,
    /// x_t: floats (N,H,W,C)
    #[arg(long, value_name = "x.npy")]
    pub(crate) input: PathBuf,
    /// Time steps 0..T: (N), or one for all
    #[arg(long, value_name = "t.npy")]
    pub(crate) timesteps: PathBuf,
    /// Classes (N), for a model that was trained with them
    #[arg(long, value_name = "c.npy")]
    pub(crate) classes: Option<PathBuf>,
    /// Which weights
    #[arg(long, value_enum, default_value = "ema")]
    pub(crate) weights: WeightsName,
    /// Where the prediction goes: floats (N,H,W,C)
    #[arg(long, value_name = "y.npy")]
    pub(crate) output: PathBuf,
    /// What the prediction is held against; prints the mean squared error
    #[arg(long, value_name = "y.npy")]
    pub(crate) target: Option<PathBuf>,
    /// Where the error's gradient by every parameter goes, under diffusers' names and in its layout
    #[arg(long, value_name = "g.npz", requires = "target")]
    pub(crate) gradients: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  ddpm export runs/digits --out digits-hf
  python -c \"from diffusers import DDPMPipeline as P; P.from_pretrained('digits-hf')().images[0].save('x.png')\"")]
pub(crate) struct ExportArgs {
    /// A run's folder, one of its checkpoints, or a diffusers folder
    pub(crate) model: PathBuf,
    /// The folder to make
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Which weights
    #[arg(long, value_enum, default_value = "ema")]
    pub(crate) weights: WeightsName,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// Arguments of `info`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ddpm info runs/digits            what it is and what it was trained with
  ddpm info samples.png            what a picture was made with
  ddpm info --preset cifar10       its network and the memory it needs")]
pub(crate) struct InfoArgs {
    /// A run's folder, a checkpoint, a diffusers folder, or a PNG that was made here
    #[arg(value_name = "MODEL|PICTURE.png", required_unless_present = "preset", conflicts_with = "preset")]
    pub(crate) path: Option<PathBuf>,
    /// A preset instead
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,
    /// Find out what memory a training step takes on this CPU with so many pictures at once, instead of an estimate
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) batch: Option<u64>,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ddpm bench --preset cifar10 --batch 16
  ddpm bench --preset cifar10 --set data.size=64 --batch 4
  ddpm bench --quick --json")]
pub(crate) struct BenchArgs {
    /// The preset whose network is measured
    #[arg(long, value_name = "NAME", default_value = "digits")]
    pub(crate) preset: String,
    /// Pictures in a step; by default the preset's, 16 at most for large networks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) batch: Option<u64>,
    /// One setting of the preset that is another here; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// A second instead of ten
    #[arg(long)]
    pub(crate) quick: bool,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// Arguments of `eval`.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// nll, fid, kid, is, pr or sfid
    #[arg(value_parser = ["nll", "fid", "kid", "is", "pr", "sfid"])]
    pub(crate) measure: String,
    /// A run's folder, one of its checkpoints, or a diffusers folder
    pub(crate) model: PathBuf,
    /// What the model is held against; by default the run's held-out part
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Number of pictures
    #[arg(short = 'n', long = "count", value_name = "N")]
    pub(crate) n: Option<u64>,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) talk: Talk,
}
