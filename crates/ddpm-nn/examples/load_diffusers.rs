//! `load_diffusers FOLDER`: reads a network that diffusers saved (a pipeline, a folder with `unet/`, or `unet/` itself),
//! says what it is, and lets it guess the noise in noise.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ddpm_nn::config::{ClassEmbedType, SampleSize};
use ddpm_nn::{Classes, Mode, Parameters, diffusers};
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cpu, CpuOptions, Tensor};

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: cargo run -p ddpm-nn --example load_diffusers FOLDER");
        return ExitCode::from(2);
    };
    match load(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", Path::new(&folder).display());
            ExitCode::FAILURE
        }
    }
}

fn load(folder: &Path) -> Result<(), Box<dyn Error>> {
    let folder: PathBuf = if folder.join("unet").is_dir() { folder.join("unet") } else { folder.to_path_buf() };
    let config = std::fs::read_to_string(folder.join("config.json"))?;
    let weights = std::fs::read(folder.join("diffusion_pytorch_model.safetensors"))?;
    let (unet, flat) = diffusers::import(&config, &weights)?;
    let config = unet.config();
    println!("{} parameters in {} tensors", unet.layout().count(), unet.layout().parameters().len());
    println!("channels of the levels {:?}, time embedding {}", config.block_out_channels, config.embedding_dim());

    let cpu = Cpu::<f32>::new(CpuOptions::default())?;
    let parameters = Parameters::from_host(&cpu, unet.layout(), &flat)?;
    let size = config.sample_size.unwrap_or(SampleSize::Square(config.size_multiple()));
    let shape = [1, size.height(), size.width(), config.in_channels];
    let mut x = vec![0.0; shape.iter().product()];
    Address::new(0, Purpose::Latent).fill_normal(0, &mut x);
    let x = Tensor::from_slice(&cpu, shape, &x)?;
    let vector = Tensor::zeros(&cpu, [1, config.embedding_dim()])?;
    let classes = match config.class_embed_type {
        _ if !config.is_class_conditional() => Classes::None,
        Some(ClassEmbedType::Identity) => Classes::Vectors(vector.view()),
        _ => Classes::Labels(&[0]),
    };
    let (y, _) = unet.forward(&cpu, &parameters, x.view(), &[999.0], classes, Mode::Infer)?;
    let y = y.to_vec(&cpu)?;
    let rms = (y.iter().map(|v| v * v).sum::<f32>() / y.len() as f32).sqrt();
    println!("input {shape:?} of pure noise at t = 999: output of rms {rms:.3}");
    Ok(())
}
