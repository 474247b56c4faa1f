//! Writes what the fixed network says of 16 pictures at every time step, for `tests/fixtures/eval/make_nll.py`:
//! `cargo run -p ddpm-tests --example nll_outputs -- FOLDER`.
#![allow(clippy::unwrap_used)]

#[path = "../tests/eval/fixed_network.rs"]
mod fixed_network;

use std::{fs::File, io::BufWriter, path::Path};

use ddpm_kernels::Backend;
use ddpm_nn::Mode;
use ddpm_tensor::random::{Address, Purpose};
use ddpm_train::diffusion::forward::Noising;
use fixed_network::{COUNT, Fixed, SEED, levels, pictures};
use npyz::WriterBuilder;

fn main() {
    let folder = std::env::args().nth(1).unwrap();
    let write = |name: &str, shape: &[u64], values: &[f32]| {
        let file = BufWriter::new(File::create(Path::new(&folder).join(name)).unwrap());
        let mut writer = npyz::WriteOptions::new().default_dtype().shape(shape).writer(file).begin_nd().unwrap();
        writer.extend(values.iter().copied()).unwrap();
        writer.finish().unwrap();
    };
    let fixed = Fixed::new(2);
    let (cpu, total) = (&fixed.cpu, fixed.schedule.time_steps());
    let x_0 = pictures(cpu, 0..COUNT);
    let (mut x_ts, mut epss, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
    for t in 0..total {
        let address = Address::new(SEED, Purpose::Likelihood).at_step(t as u64);
        let factors = vec![Noising::of_image(&fixed.schedule, t).to_f32(); COUNT];
        let (x_t, eps) = cpu.noise(x_0.view(), &factors, address).unwrap();
        let times = [t as f32; COUNT];
        let unet = &fixed.model.unet;
        let (output, _) = unet.forward(cpu, &fixed.parameters, x_t.view(), &times, None, Mode::Infer).unwrap();
        for (all, one) in [(&mut x_ts, &x_t), (&mut epss, &eps), (&mut outputs, &output)] {
            all.extend(one.to_vec(cpu).unwrap());
        }
    }
    let shape = [total as u64, COUNT as u64, 8, 8, 3];
    write("x_t.npy", &shape, &x_ts);
    write("eps.npy", &shape, &epss);
    write("output.npy", &shape, &outputs);
    let levels: Vec<f32> = levels().into_iter().map(f32::from).collect();
    write("levels.npy", &shape[1..], &levels);
}
