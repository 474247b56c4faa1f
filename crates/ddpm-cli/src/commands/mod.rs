//! What each command does.

mod arrays;
mod bench;
mod classes;
mod completions;
mod config;
mod doctor;
mod drawing;
mod eval;
mod export;
mod img2img;
mod info;
mod inpaint;
mod interpolate;
mod invert;
mod machine;
mod model_data;
mod nearest;
mod noise;
mod predict;
mod sample;
mod studio;
mod train;

use anyhow::Result;

use crate::{args::Command, failure::Failure};

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> Result<()> {
    let name = command.name();
    match command {
        Command::Train(args) => train::run(&args),
        Command::Sample(args) => sample::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Noise(args) => noise::run(&args),
        Command::Interpolate(args) => interpolate::run(&args),
        Command::Img2img(args) => img2img::run(&args),
        Command::Inpaint(args) => inpaint::run(&args),
        Command::Invert(args) => invert::run(&args),
        Command::Nearest(args) => nearest::run(&args),
        Command::Plot(args) | Command::Reproduce(args) => {
            let place = [&["ddpm".to_owned(), name.to_owned()], args.rest.as_slice()].concat().join(" ");
            Err(Failure::not_built(format!("ddpm {name}")).place(place).next("ddpm --help lists what is").into())
        }
    }
}
