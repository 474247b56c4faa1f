//! Each operation at sizes of the presets' networks, on the best instruction set of this machine.
//!
//! `cargo bench -p ddpm-kernels [-- FILTER]`; throughput is in elements: multiply-adds of products, numbers of the rest.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, measurement::WallTime};
use ddpm_kernels::adamw::AdamWStep;
use ddpm_kernels::conv::Geometry;
use ddpm_kernels::loss::LossKind;
use ddpm_kernels::{Backend, Epilogue, Norm, Operand};
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cpu, CpuOptions, Shape, Tensor};

type Group<'a> = BenchmarkGroup<'a, WallTime>;
type Bench = fn(&mut Group<'_>, &Cpu<f32>);

fn normals(cpu: &Cpu<f32>, shape: impl Into<Shape>) -> Tensor<Cpu<f32>> {
    cpu.normals(shape.into(), Address::new(1, Purpose::Test)).unwrap()
}

/// One benchmark of a group: `work` elements a run.
fn measure(group: &mut Group<'_>, name: &str, work: usize, mut run: impl FnMut()) {
    group.throughput(Throughput::Elements(work as u64));
    group.bench_function(BenchmarkId::from_parameter(name), |b| b.iter(&mut run));
}

/// Three directions of a normalised, activated convolution.
fn convolutions(group: &mut Group<'_>, cpu: &Cpu<f32>) {
    for (n, side, c, o, g) in [
        (64, 28, 32, 32, Geometry::THREE),
        (64, 14, 64, 64, Geometry::THREE),
        (8, 32, 128, 128, Geometry::THREE),
        (8, 16, 256, 256, Geometry::THREE),
        (8, 16, 256, 256, Geometry::ONE),
    ] {
        let (x, dy) = (normals(cpu, [n, side, side, c]), normals(cpu, [n, side, side, o]));
        let (w, gamma, beta) = (normals(cpu, [g.kernel, g.kernel, c, o]), normals(cpu, [c]), normals(cpu, [c]));
        let of_channels = cpu.channel_statistics(x.view()).unwrap();
        let statistics = cpu.norm_statistics([Some(of_channels.view()), None], side * side, 8, 1e-5).unwrap();
        let norm = Norm {
            groups: 8,
            statistics: statistics.view(),
            gamma: gamma.view(),
            beta: beta.view(),
            scale_shift: None,
        };
        let operand = Operand::plain(x.view()).norm(norm).silu();
        let epilogue = Epilogue { statistics: true, ..Default::default() };
        let work = n * side * side * c * o * g.kernel * g.kernel;
        let name = |direction: &str| format!("{n}x{side}x{side} {c} to {o}, kernel {}, {direction}", g.kernel);
        measure(group, &name("forward"), work, || {
            black_box(cpu.conv(&operand, w.view(), g, &epilogue).unwrap());
        });
        measure(group, &name("input gradient"), work, || {
            black_box(cpu.conv_input_grad(dy.view(), w.view(), g, &operand).unwrap());
        });
        let mut grads = cpu.zeroed(w.shape().len());
        let len = grads.len();
        measure(group, &name("weight gradient"), work, || {
            cpu.conv_weight_grad(dy.view(), &operand, g, &mut grads, 0..len).unwrap();
        });
    }
}

fn attention(group: &mut Group<'_>, cpu: &Cpu<f32>) {
    for (n, pixels, c, heads) in [(64, 49, 64, 1), (8, 256, 256, 1), (2, 1024, 64, 1), (8, 256, 256, 4)] {
        let x = normals(cpu, [n, pixels, c]);
        let (x, scale) = (x.view(), 1.0 / ((c / heads) as f32).sqrt());
        let product = n * pixels * pixels * c;
        let name = |direction: &str| format!("{n}x{pixels}x{c}, {heads} heads, {direction}");
        measure(group, &name("forward"), 2 * product, || {
            black_box(cpu.attention(x, x, x, heads, scale).unwrap());
        });
        measure(group, &name("gradient"), 5 * product, || {
            black_box(cpu.attention_grad(x, x, x, x, heads, scale).unwrap());
        });
    }
}

/// Passes over memory.
fn passes(group: &mut Group<'_>, cpu: &Cpu<f32>) {
    let shape = [64, 32, 32, 128];
    let (x, y) = (normals(cpu, shape), normals(cpu, shape));
    let (len, images) = (x.shape().len(), shape[0]);
    let address = Address::new(1, Purpose::Noise);
    measure(group, "noise", len, || {
        black_box(cpu.noise(x.view(), &vec![(0.6, 0.8); images], address).unwrap());
    });
    measure(group, "loss", len, || {
        let weights = vec![1.0; images];
        black_box(cpu.loss(LossKind::L2, x.view(), y.view(), &weights, 1.0).unwrap());
    });
    measure(group, "pixel sums", len, || {
        black_box(cpu.pixel_sums(x.view()).unwrap());
    });
    measure(group, "channel statistics", len, || {
        black_box(cpu.channel_statistics(x.view()).unwrap());
    });
    let step = AdamWStep {
        lr: 1e-3,
        beta_1: 0.9,
        beta_2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        correction_1: 0.5,
        correction_2: 0.5,
        clip: 1.0,
        ema_decay: 0.999,
    };
    let [mut p, mut g, mut m, mut v, mut ema] = [0; 5].map(|_| cpu.zeroed(len));
    measure(group, "squared norm", len, || {
        black_box(cpu.squared_norm(&p).unwrap());
    });
    measure(group, "adamw and ema", len, || {
        cpu.adamw(&step, &mut p, &mut g, &mut m, &mut v, &mut ema).unwrap();
    });
}

fn main() {
    let cpu = Cpu::<f32>::new(CpuOptions::default()).unwrap();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(10)
        .configure_from_args();
    let benches: [(&str, Bench); 3] = [("conv", convolutions), ("attention", attention), ("memory", passes)];
    for (name, bench) in benches {
        let mut group = criterion.benchmark_group(format!("{name} ({})", cpu.isa()));
        bench(&mut group, &cpu);
        group.finish();
    }
    criterion.final_summary();
}
