//! `ddpm bench`: how fast this machine trains and draws.

use std::time::{Duration, Instant};

use anyhow::Result;
use ddpm_kernels::loss::LossKind;
use ddpm_nn::{Mode, Parameters, UNet};
use ddpm_tensor::{
    Precision, Tensor,
    random::{Address, Purpose},
};
use ddpm_train::{
    diffusion::forward::noising_table,
    presets,
    settings::{Layers, Settings},
};
use serde_json::{Map, json};

use super::machine::{self, Machinery, on_device};
use crate::{args::BenchArgs, failure::Explain, output::Output};

/// Where time goes in a step.
const PHASES: [&str; 5] = ["noise", "forward", "loss", "backward", "optimiser"];

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    let output = Output::new(args.talk);
    let preset = presets::find(&args.preset).at("--preset")?;
    let mut layers = Layers::new();
    args.set.iter().try_for_each(|text| layers.set(text)).at("--set")?;
    let settings = layers.over(&preset.settings()).at("--set")?;
    machine::check(&args.machine)?;
    let (device, _) = machine::open(&args.machine, Precision::F32)?;
    on_device!(device, device => measure(args, output, settings, device))
}

/// Measures on one device.
fn measure<B: Machinery>(args: &BenchArgs, output: Output, settings: Settings, device: B) -> Result<()> {
    let large = settings.data.size.height() * settings.data.size.width() * settings.network.block_out_channels[0];
    let usual = if large > 100_000 { settings.train.batch.min(16) } else { settings.train.batch };
    let batch = args.batch.map_or(usual, |batch| batch as usize);
    let seconds = if args.quick { 1.0 } else { 4.0 };

    let mut bench = Bench::new(device, settings, batch)?;
    // The first step finds memory and warms caches: it is not measured.
    bench.step()?;
    let (before, times_before) = (bench.device.memory().1, bench.device.times());
    let mut phases = [Duration::ZERO; PHASES.len()];
    let mut steps: Vec<f64> = Vec::new();
    let begun = Instant::now();
    while steps.is_empty() || begun.elapsed().as_secs_f64() < seconds {
        let times = bench.step()?;
        phases.iter_mut().zip(times).for_each(|(sum, time)| *sum += time);
        steps.push(times.iter().sum::<Duration>().as_secs_f64());
    }
    let allocations = bench.device.memory().1.zip(before).map(|(after, before)| after - before);
    let operations = since(&times_before, bench.device.times());
    let mut passes: Vec<f64> = Vec::new();
    // training's: a GPU's memory is its own; on the CPU the process's is what counts
    let own = bench.device.memory().0 as u64;
    let peak = bench.device.threads().and_then(|_| peak_memory()).unwrap_or(own) / 1_000_000;
    // As while sampling: what is made of the weights once is no part of a pass.
    let _frozen = bench.parameters.frozen();
    bench.forward()?;
    let begun = Instant::now();
    while passes.is_empty() || begun.elapsed().as_secs_f64() < seconds / 2.0 {
        passes.push(bench.forward()?.as_secs_f64());
    }

    let (train, forward) = (batch as f64 / median(&mut steps), batch as f64 / median(&mut passes));
    let device = &bench.device;
    let total: f64 = phases.iter().map(Duration::as_secs_f64).sum();
    output.result(&format!(
        "{} at batch {batch}, {} parameters; {}",
        args.preset,
        crate::progress::thousands(bench.unet.layout().count() as u64),
        device.describe()
    ))?;
    output.result(&format!("training    {train:.2} images/s ({} steps)", steps.len()))?;
    output.result(&format!("forward     {forward:.2} images/s ({} passes)", passes.len()))?;
    output.result(&format!("memory      {peak} MB at most"))?;
    let of_step = |time: &Duration| time.as_secs_f64() / steps.len() as f64;
    let row = |name: &str, time: &Duration, calls: String| {
        let share = 100.0 * time.as_secs_f64() / total;
        output.result(&format!("{name:<27} {share:5.1} %  {:8.2} ms a step{calls}", 1e3 * of_step(time)))
    };
    for (name, time) in PHASES.iter().zip(&phases) {
        row(name, time, String::new())?;
    }
    if !operations.is_empty() {
        output.result("of which, by operation:")?;
    }
    for (name, calls, time) in &operations {
        row(name, time, format!(" in {} calls", calls / steps.len() as u64))?;
    }
    let named = |name: &str, time: &Duration| (name.to_owned(), json!(of_step(time)));
    let by_phase: Map<_, _> = PHASES.iter().zip(&phases).map(|(name, time)| named(name, time)).collect();
    let by_operation: Map<_, _> = operations.iter().map(|(name, _, time)| named(name, time)).collect();
    output.json(&json!({
        "preset": args.preset, "batch": batch, "train_images_per_s": train, "forward_images_per_s": forward,
        "peak_memory_mb": peak, "phases_s": by_phase, "operations_s": by_operation,
        "isa": device.engine().isa, "threads": device.threads(), "precision": device.engine().precision,
        "allocations_after_warm_up": allocations,
    }))?;
    Ok(())
}

/// The step that `train` runs, without reading data.
struct Bench<B: Machinery> {
    device: B,
    settings: Settings,
    unet: UNet,
    noising: Vec<(f32, f32)>,
    x_0: Tensor<B>,
    /// Where the network says more or fewer channels than it sees.
    target: Option<Tensor<B>>,
    classes: Option<Vec<usize>>,
    parameters: Parameters<B>,
    grads: Parameters<B>,
    moments: [Parameters<B>; 2],
    ema: Parameters<B>,
    step: u64,
}

impl<B: Machinery> Bench<B> {
    fn new(device: B, settings: Settings, batch: usize) -> Result<Self> {
        let (size, channels) = (settings.data.size, settings.data.channels);
        // Any number of classes costs the same.
        let count = settings.data.classes.then_some(10);
        let config = settings.unet(channels, size.height(), size.width(), count)?;
        let unet = UNet::new(&config)?;
        let parameters = Parameters::from_host(&device, unet.layout(), &unet.initial(0))?;
        let zeros = || Parameters::zeros(&device, unet.layout());
        let normals = |channels: usize, seed| {
            device.normals([batch, size.height(), size.width(), channels].into(), Address::new(seed, Purpose::Test))
        };
        Ok(Self {
            noising: noising_table(&settings.schedule().build()?),
            x_0: normals(config.in_channels, 1)?,
            target: (config.out_channels != config.in_channels).then(|| normals(config.out_channels, 2)).transpose()?,
            classes: count.map(|count| (0..batch).map(|i| i % count).collect()),
            grads: zeros()?,
            moments: [zeros()?, zeros()?],
            ema: zeros()?,
            parameters,
            unet,
            settings,
            device,
            step: 0,
        })
    }

    fn times(&self) -> Vec<f32> {
        let (n, total) = (self.x_0.shape().nhwc()[0], self.noising.len());
        (0..n).map(|i| (i * 37 % total) as f32).collect()
    }

    fn step(&mut self) -> Result<[Duration; PHASES.len()]> {
        let device = &self.device;
        let mut clock = Clock::start();
        let times = self.times();
        let factors: Vec<(f32, f32)> = times.iter().map(|&t| self.noising[t as usize]).collect();
        let address = Address::new(0, Purpose::Noise).at_step(self.step);
        let (x_t, eps) = device.noise(self.x_0.view(), &factors, address)?;
        let noise = clock.lap(device)?;
        let mode = Mode::Train { seed: 0, step: self.step, first_sample: 0 };
        let classes = self.classes.as_deref();
        let (y, cache) = self.unet.forward(device, &self.parameters, x_t.view(), &times, classes, mode)?;
        let forward = clock.lap(device)?;
        let weights = vec![1.0; times.len()];
        let target = self.target.as_ref().unwrap_or(&eps).view();
        let loss = device.loss(LossKind::L2, y.view(), target, &weights, 1.0 / y.shape().len() as f64)?;
        let loss_time = clock.lap(device)?;
        if let Some(cache) = cache {
            self.unet.backward(device, &self.parameters, cache, loss.d_output.view(), Some(&mut self.grads), false)?;
        }
        let backward = clock.lap(device)?;
        let norm = device.squared_norm(self.grads.buffer())?.sqrt();
        let settings = &self.settings;
        let update = settings.optimiser.update(self.step, settings.train.steps, norm, &settings.ema);
        let [m, v] = &mut self.moments;
        device.adamw(
            &update,
            self.parameters.buffer_mut(),
            self.grads.buffer_mut(),
            m.buffer_mut(),
            v.buffer_mut(),
            self.ema.buffer_mut(),
        )?;
        self.step += 1;
        Ok([noise, forward, loss_time, backward, clock.lap(device)?])
    }

    fn forward(&self) -> Result<Duration> {
        let mut clock = Clock::start();
        let (times, classes, device) = (self.times(), self.classes.as_deref(), &self.device);
        self.unet.forward(device, &self.parameters, self.x_0.view(), &times, classes, Mode::Infer)?;
        clock.lap(device)
    }
}

struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the last lap, until all that was queued is done.
    fn lap<B: Machinery>(&mut self, device: &B) -> Result<Duration> {
        device.wait()?;
        let now = Instant::now();
        let lap = now - self.0;
        self.0 = now;
        Ok(lap)
    }
}

/// What was added to operations' calls and times since they were `before`, the longest first.
fn since(
    before: &[(&'static str, u64, Duration)],
    mut now: Vec<(&'static str, u64, Duration)>,
) -> Vec<(&'static str, u64, Duration)> {
    for (name, calls, time) in &mut now {
        if let Some((_, calls_before, time_before)) = before.iter().find(|(known, ..)| known == name) {
            *calls -= calls_before;
            *time -= *time_before;
        }
    }
    now.retain(|&(_, calls, _)| calls > 0);
    now.sort_by_key(|&(_, _, time)| std::cmp::Reverse(time));
    now
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
