//! `ddpm reproduce`: what a table or figure of Ho et al. 2020 shows, at the scale of a preset and of the time there is.
//!
//! | file | idea |
//! |---|---|
//! | `paper` | the paper's own numbers |
//! | `training` | how many steps fit into the time, and models that are gone on with |
//! | `kept` | results that are found again |
//! | `scoring` | Inception score and Fréchet distance of models and of held-out pictures |
//! | `sheet` | tables for people and for programs |
//! | `order` | what is the other way round than in the paper |
//! | `table1`, `table2`, `rates`, `figures` | the parts |

mod figures;
mod kept;
mod order;
mod paper;
mod rates;
mod scoring;
mod sheet;
mod table1;
mod table2;
mod training;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Parser;
use ddpm_train::{model::Trained, presets};

use self::figures::Draw;
use super::{machine, studio::Ready, train::signals::Signals};
use crate::{
    args::{How, ReproduceArgs},
    failure::{Explain, Failure},
    output::Output,
    picture::Picture,
    progress::thousands,
};

/// A table or figure of Ho et al. 2020.
struct Part {
    /// What `ddpm reproduce` takes.
    name: &'static str,
    /// What the paper shows.
    paper: &'static str,
    /// How ours is read.
    here: &'static str,
    /// Makes it.
    make: Make,
}

/// How a part is made.
enum Make {
    /// One picture, drawn with one model.
    Picture(fn(&dyn Draw) -> Result<Picture>),
    /// One table or plot of numbers that may take long.
    Measured { make: fn(&Work<'_>) -> Result<()>, scores: bool },
}

/// Those that can be made.
const PARTS: &[Part] = &[
    Part {
        name: "table1",
        paper: "table 1: Inception score, FID and bits per dimension on CIFAR-10",
        here: "the same scores by the features that are named, the likelihood of held-out and of training pictures",
        make: Make::Measured { make: table1::make, scores: true },
    },
    Part {
        name: "table2",
        paper: "table 2: what is predicted and what is minimised, on CIFAR-10; ε with L_simple is best by far",
        here: "six models, as many steps each, by the same scores",
        make: Make::Measured { make: table2::make, scores: true },
    },
    Part {
        name: "table4",
        paper: "table 4: rate and distortion on CIFAR-10's test pictures; most bits describe what nobody sees",
        here: "the same for held-out pictures",
        make: Make::Measured { make: rates::table, scores: false },
    },
    Part {
        name: "fig4",
        paper: "figure 4: samples of LSUN Bedroom, FID 4.90",
        here: "64 samples, none chosen",
        make: Make::Picture(|scene| scene.samples()),
    },
    Part {
        name: "fig5",
        paper: "figure 5: rate and distortion on CIFAR-10's test pictures over time, and over each other",
        here: "the same for held-out pictures, with the paper's values from its table 4 as dots",
        make: Make::Measured { make: rates::figure, scores: false },
    },
    Part {
        name: "fig6",
        paper: "figure 6: progressive generation on CIFAR-10; coarse features are there first, details last",
        here: "a row for each picture, x̂_0 from noise on the left to the end on the right, equally many steps apart",
        make: Make::Picture(|scene| scene.progressive()),
    },
    Part {
        name: "fig7",
        paper: "figure 7: on CelebA-HQ, samples that share x_t share what is large in it: all for small t, little for large t",
        here: "a row for each t of T, 3T/4, T/2, T/4: the source, its x_t, and six x_0 drawn from that x_t",
        make: Make::Picture(|scene| scene.shared()),
    },
    Part {
        name: "fig8",
        paper: "figure 8: interpolations of CelebA-HQ pictures by 500 of 1000 steps change smoothly in pose, hair, expression",
        here: "a row for each pair: source, its reconstruction, λ = 0.1 to 0.9, the other's reconstruction, the other source",
        make: Make::Picture(|scene| scene.interpolated()),
    },
    Part {
        name: "fig9",
        paper: "figure 9: interpolations of two CelebA-HQ pictures by 1000, 875, …, 125, 0 steps; by 1000 they are new pictures, \
                by 0 a mix of pixels",
        here: "one pair, a row for each number of steps from T down to 0: the columns of figure 8",
        make: Make::Picture(|scene| scene.coarse_to_fine()),
    },
];

/// What else the paper has, and `reproduce` not yet.
const LATER: [&str; 2] = ["table3", "fig10"];

pub(super) fn run(args: &ReproduceArgs) -> Result<()> {
    let output = Output::new(args.talk);
    let part = find(&args.name)?;
    if args.model.is_none() {
        presets::find(&args.preset).at("--preset")?;
    }
    machine::check(&args.machine)?;
    if let Make::Measured { scores: true, .. } = part.make {
        scoring::check(args)?;
    }
    let folder = folder(args);
    fs::create_dir_all(&folder).context("cannot make the folder for results").at(folder.display())?;
    let signals = Signals::listen().context("cannot listen for signals")?;
    let work = Work { args, part, output, folder, signals };
    match part.make {
        Make::Picture(draw) => figures::make(&work, draw),
        Make::Measured { make, .. } => make(&work),
    }
}

fn find(name: &str) -> Result<&'static Part> {
    if let Some(part) = PARTS.iter().find(|part| part.name == name) {
        return Ok(part);
    }
    let failure = if LATER.contains(&name) {
        Failure::not_built(format!("ddpm reproduce {name}"))
    } else {
        Failure::usage(format!("there is no table or figure `{name}` to reproduce"))
    };
    let known = PARTS.iter().map(|part| part.name).collect::<Vec<_>>().join(", ");
    Err(failure.place("ddpm reproduce").next(format!("there are: {known}")).into())
}

/// Where results go, if nobody says it: a folder of its own for each preset or model.
fn folder(args: &ReproduceArgs) -> PathBuf {
    args.out.clone().unwrap_or_else(|| {
        let name = name_of_model(args).unwrap_or_else(|| args.preset.clone());
        Path::new("runs").join(format!("reproduce-{name}"))
    })
}

/// The name of a given model's folder.
fn name_of_model(args: &ReproduceArgs) -> Option<String> {
    Some(args.model.as_deref()?.file_name()?.to_string_lossy().into_owned())
}

/// What is being done.
struct Work<'a> {
    args: &'a ReproduceArgs,
    part: &'static Part,
    output: Output,
    folder: PathBuf,
    signals: Signals,
}

impl Work<'_> {
    /// The model to work with: the one that is named, or one that is trained, gone on with, or there already.
    fn model(&self) -> Result<PathBuf> {
        match &self.args.model {
            Some(model) => Ok(model.clone()),
            None => training::one(self),
        }
    }

    /// The paper's sampler, with all its steps or as many as were asked for.
    fn how(&self) -> How {
        #[derive(Parser)]
        struct Flags {
            #[command(flatten)]
            how: How,
        }
        let how = Flags::parse_from(["", "--sampler", "ddpm"]).how;
        How { steps: self.args.steps, ..how }
    }

    /// Ends the work if a signal came.
    fn watch(&self) -> Result<()> {
        if self.signals.came() {
            let what = format!("stopped; what was finished is kept in {}", self.folder.display());
            return Err(Failure::stopped(self.signals.number(), what).next(GO_ON).into());
        }
        Ok(())
    }

    /// What the paper shows and what is shown here.
    fn tell(&self, scale: &str) -> Result<()> {
        self.output.result(&format!("paper  {}", self.part.paper))?;
        Ok(self.output.result(&format!("here   the same of {scale}: {}", self.part.here))?)
    }
}

/// What to do after a signal.
const GO_ON: &str = "the same command goes on where it was";

/// What a model was trained on, and for how long.
fn scale(work: &Work<'_>, ready: &Ready) -> String {
    let Trained { settings, step, .. } = &ready.model;
    let name = name_of_model(work.args).unwrap_or_else(|| work.args.preset.clone());
    match (settings, step) {
        (Some(settings), Some(step)) => format!("{name}, {} steps of {}", thousands(*step), settings.train.batch),
        _ => name,
    }
}
