//! A network of one's own: layers of this crate, a backward pass written by hand, the kernels' AdamW; trained to draw
//! points from two half moons (a denoising diffusion model of two numbers instead of an image).

#![allow(clippy::print_stdout)]

use std::f64::consts::PI;
use std::sync::Arc;

use ddpm_kernels::adamw::AdamWStep;
use ddpm_kernels::loss::LossKind;
use ddpm_kernels::posterior::StepCoefficients;
use ddpm_kernels::{Backend, Epilogue, Operand};
use ddpm_nn::layers::{Dense, Sinusoid, TimeCache, TimeEmbedding};
use ddpm_nn::layout::Init;
use ddpm_nn::{Layout, Parameters, Result, init};
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cpu, CpuOptions, Tensor, View};

const WIDTH: usize = 64;
const STEPS: u64 = 3000;
const BATCH: usize = 128;
const SAMPLES: usize = 512;
/// Noise levels; β rises linearly from 1e-4 to 0.1.
const T: usize = 100;

/// `h_0 = into(x)`, `h_{i+1} = h_i + hidden_i(SiLU(h_i)) + time_i(SiLU(temb))`, `eps = out(SiLU(h))`.
struct Points {
    temb: TimeEmbedding,
    into: Dense,
    hidden: Vec<(Dense, Dense)>,
    out: Dense,
}

/// What the backward pass needs: every h, and the time embedding.
struct Cache<B: Backend> {
    time: TimeCache<B>,
    temb: Tensor<B>,
    h: Vec<Tensor<B>>,
}

impl Points {
    /// The layers, and the layout of their parameters.
    fn new() -> (Self, Arc<Layout>) {
        let mut layout = Layout::default();
        let sinusoid = Sinusoid { dim: 32, freq_shift: 1, flip_sin_to_cos: false };
        let temb = TimeEmbedding::new(layout.at("time"), sinusoid, WIDTH);
        let into = Dense::new(layout.at("into"), 2, WIDTH, Init::PAPER);
        let hidden = (0..3)
            .map(|i| {
                let hidden = Dense::new(layout.at(&format!("hidden.{i}")), WIDTH, WIDTH, Init::PAPER);
                (hidden, Dense::new(layout.at(&format!("hidden.{i}.time")), WIDTH, WIDTH, Init::PAPER))
            })
            .collect();
        let out = Dense::new(layout.at("out"), WIDTH, 2, Init::PAPER_ZERO);
        (Self { temb, into, hidden, out }, Arc::new(layout))
    }

    /// `x [N, 1, 1, 2]`, one time step each → the noise in it, `[N, 1, 1, 2]`.
    fn forward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        x: View<'_, B>,
        t: &[f32],
    ) -> Result<(Tensor<B>, Cache<B>)> {
        let (temb, time) = self.temb.forward(backend, parameters, t)?;
        let silu_temb = Operand::plain(temb.view()).silu();
        let first = self.into.forward(backend, parameters, &Operand::plain(x), Epilogue::default())?.y;
        let mut h = vec![first];
        for (i, (hidden, time)) in self.hidden.iter().enumerate() {
            let channel = time.forward(backend, parameters, &silu_temb, Epilogue::default())?.y;
            let epilogue = Epilogue {
                channel: Some(channel.view().reshape([t.len(), WIDTH])?),
                residual: Some(h[i].view()),
                ..Epilogue::default()
            };
            let y = hidden.forward(backend, parameters, &Operand::plain(h[i].view()).silu(), epilogue)?.y;
            h.push(y);
        }
        let last = Operand::plain(h[self.hidden.len()].view()).silu();
        let y = self.out.forward(backend, parameters, &last, Epilogue::default())?.y;
        Ok((y, Cache { time, temb, h }))
    }

    /// Adds the gradients of all parameters; `dy` is the gradient of the prediction.
    fn backward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        x: View<'_, B>,
        cache: Cache<B>,
        dy: View<'_, B>,
        grads: &mut Parameters<B>,
    ) -> Result<()> {
        let Cache { time, temb, h } = cache;
        let silu_temb = Operand::plain(temb.view()).silu();
        let mut d_temb = Tensor::zeros(backend, temb.shape())?;
        let last = Operand::plain(h[self.hidden.len()].view()).silu();
        let mut d = self.out.backward(backend, parameters, &last, dy, Some(grads))?.g;
        for (i, (hidden, time)) in self.hidden.iter().enumerate().rev() {
            let through_time = time.backward(backend, parameters, &silu_temb, d.view(), Some(grads))?.g;
            backend.add_scaled(&mut d_temb, 1.0, through_time.view())?;
            let operand = Operand::plain(h[i].view()).silu();
            let through_layer = hidden.backward(backend, parameters, &operand, d.view(), Some(grads))?.g;
            backend.add_scaled(&mut d, 1.0, through_layer.view())?;
        }
        self.into.parameter_grads(backend, &Operand::plain(x), d.view(), grads)?;
        self.temb.backward(backend, parameters, time, d_temb.view(), grads)
    }
}

/// The point at `u` in [0, 1) of the two half circles, in turns.
fn moon(i: usize, u: f64) -> [f64; 2] {
    let (x, y) = ((PI * u).cos(), (PI * u).sin());
    if i.is_multiple_of(2) { [x - 0.5, y - 0.25] } else { [0.5 - x, 0.25 - y] }
}

fn distance_to_moons(point: &[f32]) -> f64 {
    let [x, y] = [f64::from(point[0]), f64::from(point[1])];
    let at = |k: usize| moon(k, (k / 2) as f64 / 100.0);
    (0..200).map(at).map(|[a, b]| (x - a).hypot(y - b)).fold(f64::INFINITY, f64::min)
}

fn main() -> Result<()> {
    let cpu = Cpu::<f32>::new(CpuOptions::default())?;
    let beta = |t: usize| 1e-4 + (0.1 - 1e-4) * t as f64 / (T - 1) as f64;
    let alpha_bar: Vec<f64> = (0..T)
        .scan(1.0, |product, t| {
            Some({
                *product *= 1.0 - beta(t);
                *product
            })
        })
        .collect();

    let (network, layout) = Points::new();
    let mut parameters = Parameters::from_host(&cpu, &layout, &init::paper(&layout, 0))?;
    let mut ema = parameters.duplicate(&cpu)?;
    let mut grads = Parameters::zeros(&cpu, &layout)?;
    let (mut m, mut v) = (Parameters::zeros(&cpu, &layout)?, Parameters::zeros(&cpu, &layout)?);
    println!("{} parameters, {STEPS} steps of {BATCH} points", layout.count());

    for step in 0..STEPS {
        let mut u = [0.0; 2 * BATCH];
        Address::new(0, Purpose::Shuffle).at_step(step).fill_uniform(0, &mut u);
        let points: Vec<f32> = (0..BATCH).flat_map(|i| moon(i, f64::from(u[i])).map(|x| x as f32)).collect();
        let t: Vec<usize> = u[BATCH..].iter().map(|u| (u * T as f32) as usize).collect();
        let x_0 = Tensor::from_slice(&cpu, [BATCH, 1, 1, 2], &points)?;
        let coefficients: Vec<(f32, f32)> =
            t.iter().map(|&t| (alpha_bar[t].sqrt() as f32, (1.0 - alpha_bar[t]).sqrt() as f32)).collect();
        let (x_t, eps) = cpu.noise(x_0.view(), &coefficients, Address::new(0, Purpose::Noise).at_step(step))?;

        let times: Vec<f32> = t.iter().map(|&t| t as f32).collect();
        let (y, cache) = network.forward(&cpu, &parameters, x_t.view(), &times)?;
        let loss = cpu.loss(LossKind::L2, y.view(), eps.view(), &[1.0; BATCH], 1.0 / (2 * BATCH) as f64)?;
        network.backward(&cpu, &parameters, x_t.view(), cache, loss.d_output.view(), &mut grads)?;

        let norm = cpu.squared_norm(grads.buffer())?.sqrt();
        let k = step as i32 + 1;
        let adamw = AdamWStep {
            lr: 5e-3 * (1.0 - step as f64 / STEPS as f64),
            beta_1: 0.9,
            beta_2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            correction_1: 1.0 - 0.9f64.powi(k),
            correction_2: 1.0 - 0.999f64.powi(k),
            clip: (1.0 / norm).min(1.0),
            ema_decay: 0.99f64.min(f64::from(k) / (f64::from(k) + 10.0)),
        };
        let (p, g) = (parameters.buffer_mut(), grads.buffer_mut());
        cpu.adamw(&adamw, p, g, m.buffer_mut(), v.buffer_mut(), ema.buffer_mut())?;
        if (step + 1) % 500 == 0 {
            println!("step {:4}  loss {:.3}", step + 1, loss.loss.iter().sum::<f64>() / BATCH as f64);
        }
    }

    // Ancestral sampling (Ho et al. 2020, algorithm 2): mean from ε, σ² = β.
    let mut x = cpu.normals([SAMPLES, 1, 1, 2].into(), Address::new(1, Purpose::Latent))?;
    let start: f64 = x.as_slice().chunks(2).map(distance_to_moons).sum::<f64>() / SAMPLES as f64;
    for t in (0..T).rev() {
        let (eps, _) = network.forward(&cpu, &ema, x.view(), &[t as f32; SAMPLES])?;
        let root = (1.0 - beta(t)).sqrt();
        let step = StepCoefficients {
            predict_x: (1.0 / alpha_bar[t].sqrt()) as f32,
            predict_output: -((1.0 - alpha_bar[t]) / alpha_bar[t]).sqrt() as f32,
            clip: f32::INFINITY,
            from_x_0: 0.0,
            from_x: (1.0 / root) as f32,
            from_output: (-beta(t) / (root * (1.0 - alpha_bar[t]).sqrt())) as f32,
            sigma: if t == 0 { 0.0 } else { beta(t).sqrt() as f32 },
        };
        let address = Address::new(1, Purpose::Sampler).at_step(t as u64);
        x = cpu.reverse_step(x.view(), eps.view(), &step, address, false)?.0;
    }

    let points: Vec<&[f32]> = x.as_slice().chunks(2).collect();
    let end: f64 = points.iter().map(|p| distance_to_moons(p)).sum::<f64>() / SAMPLES as f64;
    println!("mean distance to the moons: {start:.3} before, {end:.3} after sampling");
    let mut picture = vec![[b' '; 64]; 24];
    for p in points {
        let (column, row) = ((p[0] + 2.0) * 16.0, (1.25 - p[1]) * 9.6);
        if (0.0..64.0).contains(&column) && (0.0..24.0).contains(&row) {
            picture[row as usize][column as usize] = b'o';
        }
    }
    for row in picture {
        println!("{}", String::from_utf8_lossy(&row).trim_end());
    }
    Ok(())
}
