//! Speed of what is not a convolution: attention in GFLOP/s, passes over memory in GB/s.
//!
//! `cargo run --release -p ddpm-kernels --example other_speed [THREADS]`

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use ddpm_kernels::Backend;
use ddpm_kernels::adamw::AdamWStep;
use ddpm_kernels::loss::LossKind;
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cpu, CpuOptions, Isa, Shape};

/// Median seconds of seven runs.
fn time(mut run: impl FnMut()) -> f64 {
    run();
    let mut times: Vec<f64> = (0..7)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[3]
}

fn main() {
    let threads = std::env::args().nth(1).and_then(|n| n.parse().ok());
    for isa in Isa::all() {
        let cpu = Cpu::<f32>::new(CpuOptions { threads, isa: Some(isa), ..Default::default() }).unwrap();
        println!("{cpu:?}");
        let normals = |shape: Shape| cpu.normals(shape, Address::new(1, Purpose::Test)).unwrap();
        for (n, p, c, heads) in [(64, 49, 64, 1), (8, 256, 256, 1), (2, 1024, 64, 1), (8, 256, 256, 4)] {
            let x = normals([n, p, c].into());
            let x = x.view();
            let scale = 1.0 / ((c / heads) as f32).sqrt();
            let flops = 2.0 * (n * p * p * c) as f64;
            let forward = time(|| drop(black_box(cpu.attention(x, x, x, heads, scale).unwrap())));
            let backward = time(|| drop(black_box(cpu.attention_grad(x, x, x, x, heads, scale).unwrap())));
            let speed = |products: f64, seconds: f64| products * flops / seconds / 1e9;
            println!(
                "attention {n}x{p}x{c}, {heads} heads: forward {:.0}, backward {:.0} GFLOP/s",
                speed(2.0, forward),
                speed(5.0, backward)
            );
        }
        let len = 1 << 23;
        let x = normals([len / 4096, 4096].into());
        let y = normals([len / 4096, 4096].into());
        let bytes = |passes: f64, seconds: f64| passes * 4.0 * len as f64 / seconds / 1e9;
        let mut buffers = [0; 5].map(|_| cpu.zeroed(len));
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
        let [p, g, m, v, ema] = &mut buffers;
        let adamw = time(|| cpu.adamw(&step, p, g, m, v, ema).unwrap());
        let norm = time(|| _ = black_box(cpu.squared_norm(p).unwrap()));
        let weights = vec![1.0; len / 4096];
        let loss = time(|| drop(black_box(cpu.loss(LossKind::L2, x.view(), y.view(), &weights, 1.0).unwrap())));
        let image = x.view().reshape([8, 64, 128, 128]).unwrap();
        let sums = time(|| drop(black_box(cpu.pixel_sums(image).unwrap())));
        println!(
            "adamw {:.1}, squared_norm {:.1}, loss {:.1}, pixel_sums {:.1} GB/s",
            bytes(10.0, adamw),
            bytes(1.0, norm),
            bytes(3.0, loss),
            bytes(1.0, sums)
        );
    }
}
