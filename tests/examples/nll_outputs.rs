//! Writes what the fixed network says of 16 pictures at every time step, for `tests/fixtures/eval/make_nll.py`:
//! `cargo run -p ddpm-tests --example nll_outputs -- FOLDER`.
#![allow(clippy::unwrap_used)]

#[path = "../tests/eval/fixed_network.rs"]
mod fixed_network;

use std::{fs::File, io::BufWriter, path::Path};

use ddpm_kernels::Backend;
use ddpm_nn::Mode;
use ddpm_tensor::random::{Address, Purpose};
use ddpm_train::diffusion::Variance;
use ddpm_train::diffusion::forward::Noising;
use fixed_network::{COUNT, Fixed, LEARNED_COUNT, SEED, levels, pictures};
use npyz::WriterBuilder;

fn main() {
    let folder = std::env::args().nth(1).unwrap();
    let write = |name: &str, shape: &[u64], values: &[f32]| {
        let file = BufWriter::new(File::create(Path::new(&folder).join(name)).unwrap());
        let mut writer = npyz::WriteOptions::new().default_dtype().shape(shape).writer(file).begin_nd().unwrap();
        writer.extend(values.iter().copied()).unwrap();
        writer.finish().unwrap();
    };
    // both kinds of learned variance have the same network
    let (fixed, learned) = (Fixed::new(2), Fixed::learned(2, Variance::Learned));
    let (cpu, total) = (&fixed.cpu, fixed.schedule.time_steps());
    let (mut x_ts, mut epss, mut outputs, mut saids) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for t in 0..total {
        let address = Address::new(SEED, Purpose::Likelihood).at_step(t as u64);
        let output = |of: &Fixed, count: usize| {
            let x_0 = pictures(cpu, 0..count);
            let factors = vec![Noising::of_image(&of.schedule, t).to_f32(); count];
            let (x_t, eps) = cpu.noise(x_0.view(), &factors, address).unwrap();
            let times = vec![t as f32; count];
            let unet = &of.model.unet;
            let (output, _) = unet.forward(cpu, &of.parameters, x_t.view(), &times, None, Mode::Infer).unwrap();
            [x_t, eps, output].map(|tensor| tensor.to_vec(cpu).unwrap())
        };
        let [x_t, eps, of_fixed] = output(&fixed, COUNT);
        let [.., of_learned] = output(&learned, LEARNED_COUNT);
        for (all, one) in [(&mut x_ts, x_t), (&mut epss, eps), (&mut outputs, of_fixed), (&mut saids, of_learned)] {
            all.extend(one);
        }
    }
    let shape = [total as u64, COUNT as u64, 8, 8, 3];
    write("x_t.npy", &shape, &x_ts);
    write("eps.npy", &shape, &epss);
    write("output.npy", &shape, &outputs);
    write("learned.npy", &[total as u64, LEARNED_COUNT as u64, 8, 8, 6], &saids);
    let levels: Vec<f32> = levels().into_iter().map(f32::from).collect();
    write("levels.npy", &shape[1..], &levels);
}
