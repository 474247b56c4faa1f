//! ndarray in, ndarray out: a noisy picture, the network's guess of its noise, and what the picture was.
//!
//! The network is fresh, so its guess is that there is no noise; replace the two lines that make it by
//! `ddpm_nn::diffusers::import` (see the example `load_diffusers`) to have one that knows something.

#![allow(clippy::print_stdout)]

use ddpm_nn::{Mode, NnError, Parameters, UNet, UNetConfig};
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cpu, CpuOptions, Tensor, TensorError};
use ndarray::{Array4, Ix4};

const CONFIG: &str = r#"{
    "in_channels": 1, "out_channels": 1, "block_out_channels": [16, 32], "layers_per_block": 1, "norm_num_groups": 8,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]
}"#;

/// The noise that the network sees in `x_t [N, H, W, C]` at time steps `t [N]`.
fn predict_noise(
    cpu: &Cpu,
    unet: &UNet,
    parameters: &Parameters<Cpu>,
    x_t: &Array4<f32>,
    t: &[f32],
) -> Result<Array4<f32>, NnError> {
    // Tensors are dense and row-major; an array in another order is brought into this one.
    let x_t = x_t.as_standard_layout();
    let (n, h, w, c) = x_t.dim();
    let x_t = Tensor::from_slice(cpu, [n, h, w, c], x_t.as_slice().unwrap_or_default())?;
    let (eps, _) = unet.forward(cpu, parameters, x_t.view(), t, None, Mode::Infer)?;
    let shape = eps.shape();
    eps.to_array(cpu)?.into_dimensionality::<Ix4>().map_err(|_| {
        let expected = "four dimensions".into();
        TensorError::Shape { operation: "predict_noise", expected, got: shape }.into()
    })
}

fn main() -> Result<(), NnError> {
    let cpu = Cpu::new(CpuOptions::default())?;
    let unet = UNet::new(&UNetConfig::from_json(CONFIG)?)?;
    let parameters = Parameters::from_host(&cpu, unet.layout(), &unet.initial(0))?;

    // A white disc on black, pixels in [-1, 1].
    let x_0 = Array4::from_shape_fn((1, 16, 16, 1), |(_, i, j, _)| {
        let (y, x) = (i as f32 - 7.5, j as f32 - 7.5);
        if y * y + x * x < 25.0 { 1.0 } else { -1.0 }
    });
    // x_t = √ᾱ·x_0 + √(1−ᾱ)·ε (Ho et al. 2020, eq. 4), with ᾱ at t = 100 of the paper's schedule.
    let (t, alpha_bar) = (100.0, 0.893_f32);
    let mut eps = Array4::zeros(x_0.raw_dim());
    if let Some(eps) = eps.as_slice_mut() {
        Address::new(0, Purpose::Noise).fill_normal(0, eps);
    }
    let x_t = alpha_bar.sqrt() * &x_0 + (1.0 - alpha_bar).sqrt() * &eps;

    let guess = predict_noise(&cpu, &unet, &parameters, &x_t, &[t])?;
    let x_0_guess = (&x_t - &((1.0 - alpha_bar).sqrt() * &guess)) / alpha_bar.sqrt();

    let rms = |a: &Array4<f32>| a.mapv(|v| v * v).mean().unwrap_or(0.0).sqrt();
    println!("{} parameters, input {:?}", unet.layout().count(), x_t.dim());
    println!("noise that was added: {:.3}, noise that was guessed: {:.3} (rms)", rms(&eps), rms(&guess));
    println!("error of the picture: {:.3} before, {:.3} after (rms)", rms(&(&x_t - &x_0)), rms(&(&x_0_guess - &x_0)));
    for row in x_0_guess.index_axis(ndarray::Axis(0), 0).rows().into_iter().collect::<Vec<_>>().chunks(16) {
        let line: String =
            row.iter().map(|v| [' ', '.', 'o', '#'][((v[0] + 1.0) * 2.0).clamp(0.0, 3.0) as usize]).collect();
        println!("  {line}");
    }
    Ok(())
}
