//! What each command does.

mod arrays;
mod bench;
mod classes;
mod completions;
mod config;
mod curves;
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
mod plot;
mod predict;
mod reproduce;
mod sample;
mod studio;
mod train;

use anyhow::Result;

use crate::args::Command;

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> Result<()> {
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
        Command::Plot(args) => plot::run(&args),
        Command::Reproduce(args) => reproduce::run(&args),
    }
}
