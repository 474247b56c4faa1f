//! Trains every objective for 300 steps and writes what PyTorch needs to do the same: initial weights, batches, time steps and
//! noise, and the loss of every step. `tests/parity/objectives.py` runs it.
//!
//! `cargo run --release -p ddpm-tests --example objective_losses -- FOLDER [NAME]…`
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::path::Path;

use ddpm_kernels::Backend;
use ddpm_nn::diffusers;
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Shape, Tensor};
use ddpm_tests::objectives::{OBJECTIVES, STEPS, trainer};
use ddpm_train::checkpoint::Weights;
use serde_json::json;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| panic!("which folder?"));
    export_all(Path::new(&folder), &arguments.collect::<Vec<_>>());
}

/// Every objective, or those that are named.
fn export_all(folder: &Path, only: &[String]) {
    for (name, changes) in OBJECTIVES.iter().filter(|(name, _)| only.is_empty() || only.iter().any(|o| o == name)) {
        println!("{name}");
        let folder = folder.join(name.replace([' ', ','], "_"));
        fs::create_dir_all(&folder).unwrap();
        export(name, changes, &folder);
    }
}

fn export(name: &str, changes: &[&str], folder: &Path) {
    let mut trainer = trainer(changes).unwrap();
    let settings = trainer.settings().clone();
    let seed = settings.train.seed;
    let cpu = trainer.backend().clone();
    let flat = trainer.parameters(Weights::Raw).to_host(&cpu).unwrap();
    let (config, weights) = diffusers::export(trainer.unet(), &flat).unwrap();
    fs::write(folder.join("config.json"), config).unwrap();
    fs::write(folder.join("diffusion_pytorch_model.safetensors"), weights).unwrap();

    let (mut x_0, mut eps, mut offset, mut t) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut losses, mut rates, mut looks_back) = (Vec::new(), Vec::new(), Vec::new());
    let (height, width) = trainer.data().size();
    let batch = settings.train.batch;
    let normals = |shape: [usize; 4], purpose, step| {
        let z: Tensor<_> = cpu.normals(Shape::from(shape), Address::new(seed, purpose).at_step(step)).unwrap();
        z.to_vec(&cpu).unwrap()
    };
    for step in 0..STEPS {
        let report = trainer.step().unwrap();
        let last = trainer.last_batch();
        x_0.extend_from_slice(last.images);
        t.extend(last.time_steps.iter().map(|&t| t as f32));
        eps.extend(normals([batch, height, width, 1], Purpose::Noise, step));
        offset.extend(normals([batch, 1, 1, 1], Purpose::OffsetNoise, step));
        losses.push(report.objective.unwrap_or(report.loss));
        rates.push(report.lr);
        looks_back.push(last.looks_back);
    }
    for (file, values) in [("x_0", x_0), ("eps", eps), ("offset", offset), ("t", t)] {
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        fs::write(folder.join(format!("{file}.f32")), bytes).unwrap();
    }
    let about = json!({
        "name": name, "steps": STEPS, "batch": batch, "height": height, "width": width, "losses": losses, "lr": rates,
        "looks_back": looks_back, "diffusion": settings.diffusion, "optimiser": settings.optimiser,
        "beta": trainer.schedule().beta(), "alpha_bar": trainer.schedule().alpha_bar(),
    });
    fs::write(folder.join("run.json"), about.to_string()).unwrap();
}
