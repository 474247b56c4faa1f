//! Trains the classifier of digits that is part of the program: `cargo xtask digits-classifier` calls this with the file to
//! write. It prints how many of the held-out digits it knows, and writes nothing below 98.5 %.
#![allow(clippy::print_stdout)] // a program for people

use std::error::Error;

use ddpm_nn::classifier::{Classifier, ClassifierConfig};
use ddpm_nn::diffusers;
use ddpm_tensor::{Cpu, CpuOptions, Precision};
use ddpm_train::eval::features::digits;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("the file to write is missing")?;
    // the same bits on every instruction set
    let cpu = Cpu::<f32>::new(CpuOptions { precision: Precision::Strict, ..CpuOptions::default() })?;
    let mut smooth = 0.0;
    let flat = digits::train(&cpu, |step, loss| {
        smooth = if step == 0 { loss } else { 0.98 * smooth + 0.02 * loss };
        if (step + 1).is_multiple_of(100) {
            println!("step {}/{}  loss {smooth:.4}", step + 1, digits::STEPS);
        }
    })?;
    let (right, of) = digits::right(&cpu, &flat)?;
    println!("{right} of {of} held-out digits are classified rightly: {:.1} %", 100.0 * right as f64 / of as f64);
    let network = Classifier::new(&ClassifierConfig::digits())?;
    let bytes = diffusers::write(network.layout(), &flat)?;
    println!("{} parameters, {} bytes", network.layout().count(), bytes.len());
    if 1000 * right < 985 * of {
        return Err("fewer than 98.5 %: not written".into());
    }
    std::fs::write(path, bytes)?;
    Ok(())
}
