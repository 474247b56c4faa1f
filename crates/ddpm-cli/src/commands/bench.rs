//! `ddpm bench`: how fast this machine trains and draws.

use std::time::{Duration, Instant};

use anyhow::Result;
use ddpm_kernels::{Backend, loss::LossKind};
use ddpm_nn::{Mode, Parameters, UNet};
use ddpm_tensor::{
    Cpu, Precision, Tensor,
    random::{Address, Purpose},
};
use ddpm_train::{diffusion::forward::noising_table, presets, settings::Settings};
use serde_json::json;

use super::machine;
use crate::{args::BenchArgs, failure::Explain, output::Output};

/// Where time goes in a step.
const PHASES: [&str; 5] = ["noise", "forward", "loss", "backward", "optimiser"];

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    let output = Output::new(args.talk);
    let preset = presets::find(&args.preset).at("--preset")?;
    machine::check(&args.machine)?;
    let (cpu, _) = machine::open(&args.machine, Precision::F32)?;
    let settings = preset.settings();
    let large = settings.data.size.height() * settings.data.size.width() * settings.network.block_out_channels[0];
    let usual = if large > 100_000 { settings.train.batch.min(16) } else { settings.train.batch };
    let batch = args.batch.map_or(usual, |batch| batch as usize);
    let seconds = if args.quick { 1.0 } else { 4.0 };

    let mut bench = Bench::new(cpu, settings, batch)?;
    // The first step finds memory and warms caches: it is not measured.
    bench.step()?;
    let before = bench.cpu.system_allocations();
    let mut phases = [Duration::ZERO; PHASES.len()];
    let mut steps: Vec<f64> = Vec::new();
    let begun = Instant::now();
    while steps.is_empty() || begun.elapsed().as_secs_f64() < seconds {
        let times = bench.step()?;
        phases.iter_mut().zip(times).for_each(|(sum, time)| *sum += time);
        steps.push(times.iter().sum::<Duration>().as_secs_f64());
    }
    let allocations = bench.cpu.system_allocations() - before;
    let mut passes: Vec<f64> = Vec::new();
    let begun = Instant::now();
    while passes.is_empty() || begun.elapsed().as_secs_f64() < seconds / 2.0 {
        passes.push(bench.forward()?.as_secs_f64());
    }

    let (train, forward) = (batch as f64 / median(&mut steps), batch as f64 / median(&mut passes));
    let peak = peak_memory().unwrap_or(bench.cpu.peak_bytes() as u64) / 1_000_000;
    let total: f64 = phases.iter().map(Duration::as_secs_f64).sum();
    let cpu = &bench.cpu;
    output.result(&format!(
        "{} at batch {batch}, {} parameters; CPU, {}, {} threads, {}",
        args.preset,
        crate::progress::thousands(bench.unet.layout().count() as u64),
        cpu.isa().name(),
        cpu.threads(),
        cpu.precision()
    ))?;
    output.result(&format!("training    {train:.2} images/s ({} steps)", steps.len()))?;
    output.result(&format!("forward     {forward:.2} images/s ({} passes)", passes.len()))?;
    output.result(&format!("memory      {peak} MB at most"))?;
    for (name, time) in PHASES.iter().zip(&phases) {
        let time = time.as_secs_f64();
        output.result(&format!(
            "{name:<11} {:5.1} %  {:8.2} ms a step",
            100.0 * time / total,
            1e3 * time / steps.len() as f64
        ))?;
    }
    let each = PHASES
        .iter()
        .zip(&phases)
        .map(|(name, time)| ((*name).to_owned(), json!(time.as_secs_f64() / steps.len() as f64)));
    output.json(&json!({
        "preset": args.preset, "batch": batch, "train_images_per_s": train, "forward_images_per_s": forward,
        "peak_memory_mb": peak, "operations_s": each.collect::<serde_json::Map<_, _>>(),
        "isa": cpu.isa().name(), "threads": cpu.threads(), "precision": cpu.precision().to_string(),
        "allocations_after_warm_up": allocations,
    }))?;
    Ok(())
}

/// The step that `train` runs, without reading data.
struct Bench {
    cpu: Cpu<f32>,
    settings: Settings,
    unet: UNet,
    noising: Vec<(f32, f32)>,
    x_0: Tensor<Cpu<f32>>,
    classes: Option<Vec<usize>>,
    parameters: Parameters<Cpu<f32>>,
    grads: Parameters<Cpu<f32>>,
    moments: [Parameters<Cpu<f32>>; 2],
    ema: Parameters<Cpu<f32>>,
    step: u64,
}

impl Bench {
    fn new(cpu: Cpu<f32>, settings: Settings, batch: usize) -> Result<Self> {
        let (size, channels) = (settings.data.size, settings.data.channels);
        // Any number of classes costs the same.
        let count = settings.data.classes.then_some(10);
        let config = settings.unet(channels, size.height(), size.width(), count)?;
        let unet = UNet::new(&config)?;
        let parameters = Parameters::from_host(&cpu, unet.layout(), &unet.initial(0))?;
        let zeros = || Parameters::zeros(&cpu, unet.layout());
        Ok(Self {
            noising: noising_table(&settings.schedule().build()?),
            x_0: cpu.normals([batch, size.height(), size.width(), channels].into(), Address::new(1, Purpose::Test))?,
            classes: count.map(|count| (0..batch).map(|i| i % count).collect()),
            grads: zeros()?,
            moments: [zeros()?, zeros()?],
            ema: zeros()?,
            parameters,
            unet,
            settings,
            cpu,
            step: 0,
        })
    }

    fn times(&self) -> Vec<f32> {
        let (n, total) = (self.x_0.shape().nhwc()[0], self.noising.len());
        (0..n).map(|i| (i * 37 % total) as f32).collect()
    }

    fn step(&mut self) -> Result<[Duration; PHASES.len()]> {
        let cpu = &self.cpu;
        let mut clock = Clock::start();
        let times = self.times();
        let factors: Vec<(f32, f32)> = times.iter().map(|&t| self.noising[t as usize]).collect();
        let address = Address::new(0, Purpose::Noise).at_step(self.step);
        let (x_t, eps) = cpu.noise(self.x_0.view(), &factors, address)?;
        let noise = clock.lap();
        let mode = Mode::Train { seed: 0, step: self.step, first_sample: 0 };
        let classes = self.classes.as_deref();
        let (y, cache) = self.unet.forward(cpu, &self.parameters, x_t.view(), &times, classes, mode)?;
        let forward = clock.lap();
        let weights = vec![1.0; times.len()];
        let loss = cpu.loss(LossKind::L2, y.view(), eps.view(), &weights, 1.0 / y.shape().len() as f64)?;
        let loss_time = clock.lap();
        if let Some(cache) = cache {
            self.unet.backward(cpu, &self.parameters, cache, loss.d_output.view(), Some(&mut self.grads), false)?;
        }
        let backward = clock.lap();
        let norm = cpu.squared_norm(self.grads.buffer())?.sqrt();
        let settings = &self.settings;
        let update = settings.optimiser.update(self.step, settings.train.steps, norm, &settings.ema);
        let [m, v] = &mut self.moments;
        cpu.adamw(
            &update,
            self.parameters.buffer_mut(),
            self.grads.buffer_mut(),
            m.buffer_mut(),
            v.buffer_mut(),
            self.ema.buffer_mut(),
        )?;
        self.step += 1;
        Ok([noise, forward, loss_time, backward, clock.lap()])
    }

    fn forward(&self) -> Result<Duration> {
        let mut clock = Clock::start();
        let (times, classes) = (self.times(), self.classes.as_deref());
        self.unet.forward(&self.cpu, &self.parameters, self.x_0.view(), &times, classes, Mode::Infer)?;
        Ok(clock.lap())
    }
}

struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the last lap.
    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let lap = now - self.0;
        self.0 = now;
        lap
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The most memory that the process has had, bytes, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kb| kb * 1024)
}
