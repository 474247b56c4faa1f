//! Speed of convolutions in all three directions at the shapes of the presets' networks, in GFLOP/s.
//!
//! `cargo run --release -p ddpm-kernels --example convolution_speed [threads=N] [isa=NAME] [precision=NAME] [shape=TEXT] [direction=NAME] [runs=N]`
//!
//! `precision=strict` shows the direct engine; `shape=8x` only those shapes whose names hold this text; `direction` is
//! `forward`, `input` or `weight`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Instant;

use ddpm_kernels::conv::{Geometry, Padding};
use ddpm_kernels::{Backend, Epilogue, Norm, Operand};
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cpu, CpuOptions, Shape, Tensor};

fn normals(cpu: &Cpu<f32>, shape: impl Into<Shape>) -> Tensor<Cpu<f32>> {
    let shape = shape.into();
    let mut values = vec![0.0; shape.len()];
    Address::new(1, Purpose::Test).fill_normal(0, &mut values);
    Tensor::from_slice(cpu, shape, &values).unwrap()
}

/// The value of a `name=value` argument.
fn argument(name: &str) -> Option<String> {
    std::env::args().find_map(|a| a.strip_prefix(name)?.strip_prefix('=').map(String::from))
}

/// Median seconds of seven runs (or as many as wanted); nothing is run in another direction than the wanted one.
fn time(direction: &str, mut run: impl FnMut()) -> f64 {
    if argument("direction").is_some_and(|wanted| wanted != direction) {
        return f64::NAN;
    }
    run();
    let runs = argument("runs").map_or(7, |n| n.parse().unwrap());
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[runs / 2]
}

fn main() {
    let argument =
        |name: &str| std::env::args().find_map(|a| a.strip_prefix(name)?.strip_prefix('=').map(String::from));
    let cpu = Cpu::<f32>::new(CpuOptions {
        threads: argument("threads").map(|n| n.parse().unwrap()),
        isa: argument("isa").map(|name| name.parse().unwrap()),
        precision: argument("precision").map(|name| name.parse().unwrap()).unwrap_or_default(),
    })
    .unwrap();
    let wanted = argument("shape").unwrap_or_default();
    println!("{cpu:?}");
    println!("{:28} {:>9} {:>9} {:>9}   GFLOP/s", "shape", "forward", "input", "weight");
    let three = Geometry::THREE;
    for (n, h, c, o, g, groups) in [
        (64, 28, 1, 32, three, 0),
        (64, 28, 32, 32, three, 8),
        (64, 28, 64, 32, three, 8),
        (64, 28, 32, 1, three, 8),
        (64, 28, 32, 32, Geometry::down(Padding::End), 0),
        (64, 14, 64, 64, three, 8),
        (64, 14, 128, 64, three, 8),
        (64, 7, 64, 64, three, 8),
        (64, 7, 64, 64, Geometry::ONE, 8),
        (64, 1, 128, 128, Geometry::ONE, 0),
        (32, 32, 32, 32, three, 8),
        (32, 16, 64, 64, three, 8),
        (32, 8, 128, 128, three, 8),
        (32, 4, 256, 256, three, 8),
        (8, 32, 128, 128, three, 32),
        (8, 16, 256, 256, three, 32),
        (8, 8, 256, 256, three, 32),
        (16, 32, 128, 128, three, 32),
        (16, 32, 256, 128, three, 32),
        (16, 16, 256, 256, three, 32),
        (16, 16, 512, 256, three, 32),
        (16, 8, 256, 256, three, 32),
        (16, 8, 512, 256, three, 32),
        (16, 4, 256, 256, three, 32),
        (16, 4, 512, 256, three, 32),
        (8, 16, 512, 256, three, 32),
        (8, 16, 256, 256, Geometry::ONE, 32),
    ] {
        let name = format!("{n}x{h}² {c}→{o} {}x{}/{}", g.kernel, g.kernel, g.stride);
        if !name.contains(&wanted) {
            continue;
        }
        let x = normals(&cpu, [n, h, h, c]);
        let (oh, ow) = g.output(h, h).unwrap();
        let dy = normals(&cpu, [n, oh, ow, o]);
        let w = normals(&cpu, [g.kernel, g.kernel, c, o]);
        let (gamma, beta) = (normals(&cpu, [c]), normals(&cpu, [c]));
        let statistics = cpu.channel_statistics(x.view()).unwrap();
        let statistics = cpu.norm_statistics([Some(statistics.view()), None], h * h, groups.max(1), 1e-5).unwrap();
        let mut operand = Operand::plain(x.view());
        if groups > 0 {
            let (statistics, gamma, beta) = (statistics.view(), gamma.view(), beta.view());
            operand = operand.norm(Norm { groups, statistics, gamma, beta, scale_shift: None }).silu();
        }
        let epilogue = Epilogue { bias: None, statistics: h > 1, ..Default::default() };
        let mut grads = cpu.zeroed(w.shape().len());
        let flops = 2.0 * (n * oh * ow * o * c * g.kernel * g.kernel) as f64;
        let speed = |seconds: f64| flops / seconds / 1e9;
        let forward = time("forward", || drop(cpu.conv(&operand, w.view(), g, &epilogue).unwrap()));
        let input = time("input", || drop(cpu.conv_input_grad(dy.view(), w.view(), g, &operand).unwrap()));
        let len = grads.len();
        let weight = time("weight", || cpu.conv_weight_grad(dy.view(), &operand, g, &mut grads, 0..len).unwrap());
        println!("{name:28} {:9.0} {:9.0} {:9.0}", speed(forward), speed(input), speed(weight));
    }
}
