//! Arguments of the commands that work on a picture of the user's.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{How, Machine, Talk};

/// Arguments of `noise`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ddpm noise cat.jpg --size 128 --out strip.png
  ddpm noise cat.jpg --size 128 --schedule cosine --out film.gif")]
pub(crate) struct NoiseArgs {
    /// A picture
    pub(crate) image: PathBuf,
    /// A .png (the strip from x_0 to x_T: step by step above, in closed form below), .gif or .npy (2,N,H,W,C)
    #[arg(long, value_name = "X")]
    pub(crate) out: PathBuf,
    /// Pictures in the strip, the first without noise
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u64).range(2..=1000))]
    pub(crate) count: u64,
    /// Longer side of the pictures in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 96, value_parser = clap::value_parser!(u64).range(1..=2048))]
    pub(crate) size: u64,
    /// How the noise variance beta grows over the time steps
    #[arg(long, value_name = "NAME", default_value = "linear")]
    pub(crate) schedule: String,
    /// T, the number of time steps
    #[arg(long, value_name = "T", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) timesteps: u64,
    /// Where all randomness comes from
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// Where pictures are mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Space {
    /// Noised pictures, in straight proportion (Ho et al. 2020, figure 8)
    Xt,
    /// Latents, along the sphere (Song et al. 2021, section 5.3): of DDIM's inversion, a seed or an .npy file
    Slerp,
}

/// Arguments of `interpolate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ddpm interpolate runs/digits three.png eight.png --at 500 --out row.png
  ddpm interpolate runs/digits 1 2 --space slerp --out row.png           between the pictures of two seeds
  ddpm interpolate runs/digits three.png eight.png --space slerp --out film.gif")]
pub(crate) struct InterpolateArgs {
    /// A run's folder, one of its checkpoints, or a diffusers folder
    pub(crate) model: PathBuf,
    /// A picture; with --space slerp also a seed, or latents in an .npy file
    pub(crate) a: String,
    /// Another
    pub(crate) b: String,
    /// The time step to which pictures are noised; by default half of all
    #[arg(long, value_name = "t")]
    pub(crate) at: Option<u64>,
    /// Where they are mixed
    #[arg(long, value_enum, default_value = "xt")]
    pub(crate) space: Space,
    /// Pictures from A to B, both ends included
    #[arg(short = 'n', long = "count", value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u64).range(2..=10_000))]
    pub(crate) n: u64,
    /// A .png (a row), .gif (from A to B and back), .npy or .npz file, or a folder for numbered PNGs
    #[arg(long, value_name = "X")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) how: How,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// Arguments of `img2img`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ddpm img2img runs/digits three.png --strength 0.5 -n 8 --out row.png
  ddpm img2img runs/digits three.png --strength 0.7 -n 16 --sampler ddpm --shared --out grid.png   one x_t, many pictures")]
pub(crate) struct Img2imgArgs {
    /// A run's folder, one of its checkpoints, or a diffusers folder
    pub(crate) model: PathBuf,
    /// A picture
    pub(crate) image: PathBuf,
    /// How much of the way to noise it goes: near 0 nothing changes, 1 forgets the picture
    #[arg(long, value_name = "S")]
    pub(crate) strength: f64,
    /// Number of pictures
    #[arg(short = 'n', long = "count", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) n: u64,
    /// All pictures come from one x_t, and differ by the noise that the sampler adds (Ho et al. 2020, figure 7)
    #[arg(long)]
    pub(crate) shared: bool,
    /// A .png (one picture, or a grid), .gif, .npy or .npz file, or a folder for numbered PNGs
    #[arg(long, value_name = "X")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) how: How,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// Arguments of `inpaint`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  ddpm inpaint runs/digits three.png --mask half.png -n 8 --out row.png")]
pub(crate) struct InpaintArgs {
    /// A run's folder, one of its checkpoints, or a diffusers folder
    pub(crate) model: PathBuf,
    /// A picture
    pub(crate) image: PathBuf,
    /// A picture of the same size: white is filled, black stays, grey is mixed
    #[arg(long, value_name = "M")]
    pub(crate) mask: PathBuf,
    /// How often every stretch of steps is walked, with noise put back between (Lugmayr et al. 2022); 1 for once
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) resample: u64,
    /// Steps in a stretch
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) jump: u64,
    /// Number of pictures
    #[arg(short = 'n', long = "count", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) n: u64,
    /// A .png (one picture, or a grid), .npy or .npz file, or a folder for numbered PNGs
    #[arg(long, value_name = "X")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) how: How,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// Arguments of `invert`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  ddpm invert runs/digits three.png --no-clip --out x_T.npy
  ddpm sample runs/digits --noise x_T.npy --no-clip --out again.png")]
pub(crate) struct InvertArgs {
    /// A run's folder, one of its checkpoints, or a diffusers folder
    pub(crate) model: PathBuf,
    /// A picture, or pictures in an .npy file (N,H,W,C) with values from -1 to 1
    pub(crate) image: PathBuf,
    /// How often each step is solved again with the latent found so far; 1 guesses once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) iterations: u64,
    /// The .npy file for the latents
    #[arg(long, value_name = "x_T.npy")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) how: How,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// Arguments of `nearest`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ddpm nearest runs/digits --out rows.png             each sample, and the training pictures nearest to it
  ddpm nearest google-ddpm-cifar10-32 --data cifar-10-batches-bin/ -n 8")]
pub(crate) struct NearestArgs {
    /// A run's folder, one of its checkpoints, or a diffusers folder
    pub(crate) model: PathBuf,
    /// The training pictures; by default the run's own
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Number of samples
    #[arg(short = 'n', long = "count", value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) n: u64,
    /// Neighbours of each
    #[arg(short = 'k', long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=50))]
    pub(crate) neighbours: u64,
    /// A .png: a row for each sample, the sample first
    #[arg(long, value_name = "rows.png")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) how: How,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) talk: Talk,
}
