//! Everything but products: statistics, sums, losses, the optimiser, noise, on the stand-in GPU against the CPU.

use crate::support::{Compute, compare, normal};
use ddpm_kernels::Backend;
use ddpm_kernels::adamw::AdamWStep;
use ddpm_kernels::loss::LossKind;
use ddpm_kernels::posterior::StepCoefficients;
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Tensor, View};

const SIZES: [[usize; 4]; 8] = [
    [1, 1, 1, 1],
    [3, 17, 17, 3],
    [2, 1, 130, 7],
    [17, 3, 1, 130],
    [1, 33, 35, 17],
    [19, 4, 4, 33],
    [35, 1, 1, 64],
    [2, 4, 4, 0],
];

/// The names of results, and their values on the host.
macro_rules! results {
    ($device:ident, $($name:literal: $tensor:expr),* $(,)?) => { vec![$(($name, $tensor.to_vec($device).unwrap())),*] };
}

struct Statistics([usize; 4], [usize; 2]);

impl Compute for Statistics {
    fn on<B: Backend<Elem = f32>>(&self, d: &B) -> Vec<(&'static str, Vec<f32>)> {
        let Self([n, h, w, c], groups) = *self;
        // a mean far from zero: what the sum of squares would lose
        let x = d.affine(normal(d, 1, [n, h, w, c]).view(), 0.25, 3.0).unwrap();
        let statistics = d.channel_statistics(x.view()).unwrap();
        let mut all = results!(d, "channels": statistics);
        if c > 0 {
            for groups in groups.into_iter().filter(|&g| c.is_multiple_of(g)) {
                let one = d.norm_statistics([Some(statistics.view()), None], h * w, groups, 1e-5).unwrap();
                all.extend(results!(d, "groups": one));
                let two = [Some(statistics.view()), Some(statistics.view())];
                all.extend(results!(d, "groups of two": d.norm_statistics(two, h * w, 2 * groups, 1e-6).unwrap()));
            }
        }
        all
    }
}

#[test]
fn statistics_agree() {
    for size in SIZES {
        compare(&format!("{size:?}"), 1e-6, &Statistics(size, [1, size[3].max(1)]));
    }
    compare("straddling groups", 1e-6, &Statistics([2, 5, 5, 12], [3, 4]));
}

struct Sums([usize; 4]);

impl Compute for Sums {
    fn on<B: Backend<Elem = f32>>(&self, d: &B) -> Vec<(&'static str, Vec<f32>)> {
        let [n, h, w, c] = self.0;
        let x = normal(d, 2, self.0);
        let mut all = results!(d, "pixels": d.pixel_sums(x.view()).unwrap());
        let mut sum = normal(d, 3, self.0);
        d.add_scaled(&mut sum, -0.3, x.view()).unwrap();
        all.extend(results!(d, "scaled": sum, "affine": d.affine(x.view(), 0.5, 0.125).unwrap()));
        let _ = (n, h, w, c);
        all
    }
}

#[test]
fn sums_agree() {
    for size in SIZES {
        compare(&format!("{size:?}"), 1e-6, &Sums(size));
    }
}

struct Rows {
    n: usize,
    c: usize,
    table: usize,
}

impl Compute for Rows {
    fn on<B: Backend<Elem = f32>>(&self, d: &B) -> Vec<(&'static str, Vec<f32>)> {
        let Self { n, c, table } = *self;
        let (rows, mut grads) = (normal(d, 4, [n, c]), normal(d, 5, [(table + 2) * c]));
        let indices: Vec<usize> = (0..n).map(|i| (i * i + i / 3) % table).collect();
        d.batch_sums(rows.view(), grads.view_mut().buffer(), c..2 * c).unwrap();
        d.scatter_rows(rows.view(), &indices, grads.view_mut().buffer(), c..(table + 1) * c).unwrap();
        let source = grads.view().reshape([table + 2, c]).unwrap();
        results!(d, "gathered": d.gather_rows(source, &indices).unwrap(), "grads": grads)
    }
}

#[test]
fn rows_agree_to_the_bit() {
    for (n, c, table) in [(1, 1, 1), (3, 7, 2), (17, 130, 5), (48, 300, 4), (32, 3, 100)] {
        compare(&format!("{n} rows of {c}, table of {table}"), 0.0, &Rows { n, c, table });
    }
}

struct Loss(LossKind, [usize; 4]);

impl Compute for Loss {
    fn on<B: Backend<Elem = f32>>(&self, d: &B) -> Vec<(&'static str, Vec<f32>)> {
        let weights: Vec<f32> = (0..self.1[0]).map(|i| 0.5 + i as f32).collect();
        let (output, target) = (normal(d, 6, self.1), normal(d, 7, self.1));
        let loss = d.loss(self.0, output.view(), target.view(), &weights, 1.0 / 300.0).unwrap();
        let single = |values: &[f64]| values.iter().map(|&v| v as f32).collect();
        vec![("loss", single(&loss.loss)), ("mse", single(&loss.mse)), ("gradient", loss.d_output.to_vec(d).unwrap())]
    }
}

#[test]
fn losses_agree() {
    for size in &SIZES[..7] {
        for kind in [LossKind::L2, LossKind::L1, LossKind::Huber { delta: 0.7 }] {
            compare(&format!("{kind:?} {size:?}"), 1e-7, &Loss(kind, *size));
        }
    }
    compare("several blocks", 1e-7, &Loss(LossKind::L2, [2, 70, 70, 3]));
}

struct Optimiser(usize);

impl Compute for Optimiser {
    fn on<B: Backend<Elem = f32>>(&self, d: &B) -> Vec<(&'static str, Vec<f32>)> {
        let step = AdamWStep {
            lr: 2e-4,
            beta_1: 0.9,
            beta_2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
            correction_1: 1.0 - 0.9,
            correction_2: 1.0 - 0.999,
            clip: 0.7,
            ema_decay: 0.99,
        };
        let [mut p, mut g, mut m, mut v, mut ema] = [8, 9, 10, 11, 12].map(|stream| normal(d, stream, [self.0]));
        let squares = d.affine(v.view(), 0.0, 0.04).unwrap();
        v = squares;
        let norm = d.squared_norm(g.view().buffer()).unwrap();
        d.adamw(
            &step,
            p.view_mut().buffer(),
            g.view_mut().buffer(),
            m.view_mut().buffer(),
            v.view_mut().buffer(),
            ema.view_mut().buffer(),
        )
        .unwrap();
        let mut all = results!(d, "p": p, "g": g, "m": m, "v": v, "ema": ema);
        all.push(("norm", vec![norm as f32]));
        all
    }
}

#[test]
fn the_optimiser_agrees_to_the_bit() {
    for len in [1, 3, 4, 1000, 40_003, 100_001] {
        compare(&format!("{len} parameters"), 0.0, &Optimiser(len));
    }
}

struct Noise([usize; 4]);

impl Compute for Noise {
    fn on<B: Backend<Elem = f32>>(&self, d: &B) -> Vec<(&'static str, Vec<f32>)> {
        let address = Address { seed: 7, purpose: Purpose::Noise, step: (1 << 33) + 5, sample: u32::MAX as u64 - 1 };
        let x_0 = normal(d, 13, self.0);
        let coefficients: Vec<_> = (0..self.0[0]).map(|i| (1.0 / (i + 1) as f32, 0.3 * i as f32)).collect();
        let (x_t, eps) = d.noise(x_0.view(), &coefficients, address).unwrap();
        let c = StepCoefficients {
            predict_x: 1.25,
            predict_output: -0.75,
            clip: 1.0,
            from_x_0: 0.4,
            from_x: 0.55,
            from_output: -0.1,
            sigma: 0.3,
        };
        let (next, predicted) = d.reverse_step(x_t.view(), eps.view(), &c, address, true).unwrap();
        let (alone, none) = d.reverse_step(x_t.view(), eps.view(), &c, address, false).unwrap();
        assert!(none.is_none());
        let normals = d.normals(self.0.into(), address).unwrap();
        results!(
            d, "x_t": x_t, "eps": eps, "next": next, "x_0": predicted.unwrap(), "alone": alone, "normals": normals
        )
    }
}

#[test]
fn noise_and_steps_back_agree_to_the_bit() {
    for size in SIZES {
        compare(&format!("{size:?}"), 0.0, &Noise(size));
    }
}

struct Halves([usize; 2]);

impl Compute for Halves {
    fn on<B: Backend<Elem = f32>>(&self, d: &B) -> Vec<(&'static str, Vec<f32>)> {
        let [n, c] = self.0;
        let rows = normal(d, 14, [n, c]);
        let sum = |cuts: &[usize]| {
            let mut grads = d.zeros(c).unwrap();
            let mut from = 0;
            for &to in cuts {
                let part = View::<B>::of(rows.view().buffer(), from * c, [to - from, c]).unwrap();
                d.batch_sums(part, &mut grads, 0..c).unwrap();
                from = to;
            }
            Tensor::<B>::from_buffer(grads, [c]).unwrap().to_vec(d).unwrap()
        };
        let whole = sum(&[n]);
        assert_eq!(sum(&[16, n]), whole);
        vec![("sum", whole)]
    }
}

#[test]
fn micro_batches_add_up_to_the_bit() {
    compare("35 rows", 0.0, &Halves([35, 40]));
}
