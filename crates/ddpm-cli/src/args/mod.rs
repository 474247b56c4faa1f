//! What was typed. Nothing is opened, built or probed here.

mod how;
mod machine;
mod models;
mod pictures;
mod runs;
mod train;

use clap::{Args, Parser, Subcommand};

pub(crate) use self::{
    how::{How, WeightsName},
    machine::{DeviceName, Machine, PrecisionName},
    models::{BenchArgs, EvalArgs, ExportArgs, FilmName, InfoArgs, PredictArgs, SampleArgs},
    pictures::{Img2imgArgs, InpaintArgs, InterpolateArgs, InvertArgs, NearestArgs, NoiseArgs, Space},
    runs::{PlotArgs, ReproduceArgs},
    train::TrainArgs,
};

/// Train denoising diffusion models and make pictures with them.
#[derive(Debug, Parser)]
#[command(
    name = "ddpm",
    version,
    about,
    arg_required_else_help = true,
    after_help = "\
Examples:
  ddpm train                                  learn handwritten digits, from nothing, in minutes
  ddpm train --data photos/                   learn your own pictures
  ddpm sample runs/digits --out new.png       make new ones
  ddpm sample runs/digits --out film.gif      and watch them appear
  ddpm noise cat.jpg --out strip.png          what happens to a picture before it is learned
  ddpm export runs/digits --out digits-hf     a folder that diffusers loads
  ddpm config --preset cifar10 > my.toml      every setting, with its meaning"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a model; with no argument, on the digits that the program brings
    Train(TrainArgs),
    /// Make pictures with a model
    Sample(SampleArgs),
    /// One pass of a model's network over arrays, and its gradients
    Predict(PredictArgs),
    /// Write a model as a folder that diffusers loads
    Export(ExportArgs),
    /// Describe a model, a picture that was made here, or a preset
    Info(InfoArgs),
    /// Measure this machine: training and forward speed, memory, time by operation
    Bench(BenchArgs),
    /// Measure a model: likelihood and distances to data (not built yet)
    Eval(EvalArgs),
    /// Print every setting with its meaning, as a file for `train --config`
    Config(ConfigArgs),
    /// Print a script that completes ddpm's commands in a shell
    Completions(CompletionsArgs),
    /// Say what this machine offers and what it lacks
    Doctor(DoctorArgs),
    /// Show a picture being noised step by step
    Noise(NoiseArgs),
    /// Walk between two pictures
    Interpolate(InterpolateArgs),
    /// Change a picture by noising and denoising it
    Img2img(Img2imgArgs),
    /// Fill the masked part of a picture
    Inpaint(InpaintArgs),
    /// Find the noise that becomes a picture
    Invert(InvertArgs),
    /// Find the training pictures nearest to samples
    Nearest(NearestArgs),
    /// Draw the curves of runs over each other
    Plot(PlotArgs),
    /// Repeat a figure of Ho et al. 2020 at the scale of the time there is
    Reproduce(ReproduceArgs),
}

impl Command {
    /// The command as it is typed.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Train(_) => "train",
            Self::Sample(_) => "sample",
            Self::Predict(_) => "predict",
            Self::Export(_) => "export",
            Self::Info(_) => "info",
            Self::Bench(_) => "bench",
            Self::Eval(_) => "eval",
            Self::Config(_) => "config",
            Self::Completions(_) => "completions",
            Self::Doctor(_) => "doctor",
            Self::Noise(_) => "noise",
            Self::Interpolate(_) => "interpolate",
            Self::Img2img(_) => "img2img",
            Self::Inpaint(_) => "inpaint",
            Self::Invert(_) => "invert",
            Self::Nearest(_) => "nearest",
            Self::Plot(_) => "plot",
            Self::Reproduce(_) => "reproduce",
        }
    }
}

/// How much is said, and in which form.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Talk {
    /// Say nothing but results and errors
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Make the last line of standard output one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `config`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ddpm config --preset digits
  ddpm config --preset cifar10 --set optimiser.lr=1e-4 > my.toml && ddpm train --config my.toml --data cifar/")]
pub(crate) struct ConfigArgs {
    /// The preset whose settings are printed
    #[arg(long, value_name = "NAME", default_value = "digits")]
    pub(crate) preset: String,
    /// Settings that override the preset's
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) config: Option<std::path::PathBuf>,
    /// One setting that overrides all others; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  ddpm completions bash > ~/.local/share/bash-completion/completions/ddpm")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) talk: Talk,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_well_formed() {
        super::Cli::command().debug_assert();
    }
}
