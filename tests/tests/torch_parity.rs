//! Against PyTorch: ten optimiser steps (network, loss, clipping and AdamW together), and a pipeline's scheduler. See
//! `tests/fixtures/README.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../fixtures/fixture.rs"]
mod fixture;

use ddpm_kernels::Backend;
use ddpm_kernels::loss::LossKind;
use ddpm_nn::{Mode, Parameters, diffusers};
use ddpm_tensor::{Cpu, CpuOptions, Element, Precision, Tensor};
use ddpm_train::diffusion::scheduler_config::SchedulerConfig;
use ddpm_train::diffusion::{Prediction, Variance};
use ddpm_train::ema::EmaSettings;
use ddpm_train::optimiser::OptimiserSettings;
use fixture::Arrays;

const STEPS: u64 = 10;

/// Largest relative errors over the steps: of the losses, of the gradients' norms; and of the final parameters.
fn ten_steps<T: Element>() -> [f64; 3]
where
    Cpu<T>: Backend<Elem = T>,
{
    let cpu = Cpu::<T>::new(CpuOptions { precision: Precision::Strict, ..CpuOptions::default() }).unwrap();
    let settings = OptimiserSettings {
        lr: 1e-3,
        beta_1: 0.9,
        beta_2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        warmup: 0,
        clip_norm: 1.0,
        ..OptimiserSettings::default()
    };
    let mut fixture = Arrays::open("ten_steps/steps.npz");
    let image = |(shape, values): (Vec<usize>, Vec<f32>)| {
        let &[n, h, w, c] = &shape[..] else { panic!("images have four sizes, not {shape:?}") };
        let values: Vec<T> = values.into_iter().map(T::of_f32).collect();
        Tensor::from_slice(&cpu, [n, h, w, c], &values).unwrap()
    };
    let (x_t, eps) = (image(fixture.get("x_t")), image(fixture.get("eps")));
    let timesteps: Vec<f32> = fixture.get::<i64>("timesteps").1.iter().map(|&t| t as f32).collect();
    let weights = vec![1.0; timesteps.len()];

    let (config, bytes) = fixture::network("ten_steps");
    let (unet, flat) = diffusers::import(&config, &bytes).unwrap();
    let mut parameters = Parameters::from_host(&cpu, unet.layout(), &flat).unwrap();
    let zeros = || Parameters::zeros(&cpu, unet.layout()).unwrap();
    let (mut grads, mut m, mut v, mut ema) = (zeros(), zeros(), zeros(), zeros());
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for step in 0..STEPS {
        let (output, cache) =
            unet.forward(&cpu, &parameters, x_t.view(), &timesteps, None, Mode::Differentiate).unwrap();
        let scale = 1.0 / output.shape().len() as f64;
        let loss = cpu.loss(LossKind::L2, output.view(), eps.view(), &weights, scale).unwrap();
        losses.push(loss.loss.iter().sum::<f64>() / loss.loss.len() as f64);
        unet.backward(&cpu, &parameters, cache.unwrap(), loss.d_output.view(), Some(&mut grads), false).unwrap();
        let norm = cpu.squared_norm(grads.buffer()).unwrap().sqrt();
        norms.push(norm);
        let update = settings.update(step, STEPS, norm, &EmaSettings::default());
        let (m, v, ema) = (m.buffer_mut(), v.buffer_mut(), ema.buffer_mut());
        cpu.adamw(&update, parameters.buffer_mut(), grads.buffer_mut(), m, v, ema).unwrap();
    }

    let worst = |ours: &[f64], theirs: &[f64]| {
        assert_eq!(ours.len(), theirs.len());
        ours.iter().zip(theirs).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max)
    };
    let flat: Vec<f32> = parameters.to_host(&cpu).unwrap().into_iter().map(T::to_f32).collect();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for p in diffusers::named(unet.layout(), &flat).unwrap() {
        theirs.extend(fixture.get::<f32>(&format!("final.{}", p.name)).1);
        ours.extend(p.values);
    }
    let errors = [
        worst(&losses, &fixture.get("losses").1),
        worst(&norms, &fixture.get("grad_norms").1),
        fixture::relative(&ours, &theirs),
    ];
    println!("{losses:?}");
    println!("losses {:.1e}, norms {:.1e}, final parameters {:.1e}", errors[0], errors[1], errors[2]);
    errors
}

#[test]
fn ten_steps_of_adamw_are_pytorchs_in_f64() {
    let errors = ten_steps::<f64>();
    assert!(errors.iter().all(|e| *e < 5e-7), "losses, norms, parameters differ by {errors:?}");
}

#[test]
fn ten_steps_of_adamw_are_pytorchs_in_f32() {
    let errors = ten_steps::<f32>();
    assert!(errors.iter().all(|e| *e < 2e-5), "losses, norms, parameters differ by {errors:?}");
}

#[test]
fn a_pipelines_scheduler_is_understood() {
    let path = fixture::folder("pipeline/scheduler/scheduler_config.json");
    let config = SchedulerConfig::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(config.options.prediction, Prediction::V);
    assert_eq!(config.options.variance, Variance::FixedLarge);
    let schedule = config.schedule.build().unwrap();
    let ours: Vec<f32> = schedule.alpha_bar().iter().map(|&a| a as f32).collect();
    let theirs = Arrays::open("pipeline/case.npz").get::<f32>("alphas_cumprod").1;
    assert_eq!(ours.len(), theirs.len());
    // diffusers multiplies in f32: 100 roundings of 6e-8 at most
    let worst = ours.iter().zip(&theirs).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f32::max);
    assert!(worst < 6e-6, "alpha_bar differs by {worst:.1e}");
}
