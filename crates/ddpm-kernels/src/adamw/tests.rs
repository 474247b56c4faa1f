#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::{close, cpu, handles, same_bits, values};

fn settings(k: i32) -> AdamWStep {
    AdamWStep {
        lr: 2e-3,
        beta_1: 0.9,
        beta_2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        correction_1: 1.0 - 0.9f64.powi(k),
        correction_2: 1.0 - 0.999f64.powi(k),
        clip: 0.7,
        ema_decay: 0.9999,
    }
}

fn buffer<T: Element>(cpu: &Cpu<T>, values: &[T]) -> CpuBuffer<T> {
    let mut buffer = cpu.scratch(values.len());
    buffer.copy_from_slice(values);
    buffer
}

/// Steps with fresh gradients, as PyTorch's documentation of `torch.optim.AdamW` writes them; (p, m, v, ema).
fn by_definition(start: &[f64], grads: impl Fn(i32) -> Vec<f64>, steps: i32) -> [Vec<f64>; 4] {
    let (mut p, mut ema) = (start.to_vec(), start.to_vec());
    let (mut m, mut v) = (vec![0.0; p.len()], vec![0.0; p.len()]);
    for k in 1..=steps {
        let s = settings(k);
        for (i, grad) in grads(k).into_iter().enumerate() {
            let g = s.clip * grad;
            p[i] -= s.lr * s.weight_decay * p[i];
            m[i] = s.beta_1 * m[i] + (1.0 - s.beta_1) * g;
            v[i] = s.beta_2 * v[i] + (1.0 - s.beta_2) * g * g;
            let m_hat = m[i] / (1.0 - s.beta_1.powi(k));
            let v_hat = v[i] / (1.0 - s.beta_2.powi(k));
            p[i] -= s.lr * m_hat / (v_hat.sqrt() + s.eps);
            ema[i] = s.ema_decay * ema[i] + (1.0 - s.ema_decay) * p[i];
        }
    }
    [p, m, v, ema]
}

fn check<T: Element>(relative: f64) {
    const STEPS: i32 = 20;
    let as_f64 = |x: &[T]| x.iter().map(|v| v.to_f64()).collect::<Vec<_>>();
    for len in [0, 1, 3, 7, 17, 130, 2 * CHUNK + 3] {
        let start: Vec<T> = values(1, len);
        // from tiny to large, with exact zeros
        let grads = |k: i32| -> Vec<T> {
            let scale = |i: usize| T::of(10f64.powi(i as i32 % 7 - 5) * (!i.is_multiple_of(11) as u8 as f64));
            values::<T>(10 + k as u64, len).into_iter().enumerate().map(|(i, g)| g * scale(i)).collect()
        };
        let expected = by_definition(&as_f64(&start), |k| as_f64(&grads(k)), STEPS);
        let mut reference = None;
        for cpu in handles::<T>() {
            let mut p = buffer(&cpu, &start);
            let mut ema = buffer(&cpu, &start);
            let (mut m, mut v) = (cpu.zeroed(len), cpu.zeroed(len));
            for k in 1..=STEPS {
                let mut g = buffer(&cpu, &grads(k));
                adamw(&cpu, &settings(k), &mut p, &mut g, &mut m, &mut v, &mut ema).unwrap();
                assert!(g.iter().all(|&g| g == T::ZERO), "gradients are zeroed");
            }
            let got = [p, m, v, ema].map(|b| b.to_vec());
            for ((name, got), expected) in ["p", "m", "v", "ema"].into_iter().zip(&got).zip(&expected) {
                let absolute = if name == "v" { 1e-30 } else { relative };
                close(&format!("{name} of {len}"), got, expected, 10.0 * relative, absolute);
            }
            let reference: &[Vec<T>; 4] = reference.get_or_insert_with(|| got.clone());
            for (got, reference) in got.iter().zip(reference) {
                same_bits(&format!("{cpu:?}"), got, reference);
            }
        }
    }
}

#[test]
fn steps_are_those_of_the_definition_and_the_same_everywhere() {
    check::<f32>(1e-6);
    check::<f64>(1e-13);
}

#[test]
fn what_rests_stays_to_the_bit() {
    let cpu = cpu::<f32>();
    let start: Vec<f32> = values(5, 1000);
    for ema_decay in [0.0, 0.3, 0.7, 0.95, 0.999, 0.9999] {
        let (mut p, mut ema) = (buffer(&cpu, &start), buffer(&cpu, &start));
        let (mut g, mut m, mut v) = (cpu.zeroed(1000), cpu.zeroed(1000), cpu.zeroed(1000));
        let step = AdamWStep { weight_decay: 0.0, ema_decay, ..settings(3) };
        for _ in 0..100 {
            adamw(&cpu, &step, &mut p, &mut g, &mut m, &mut v, &mut ema).unwrap();
        }
        same_bits("p", &p, &start);
        same_bits("ema", &ema, &start);
    }
}

#[test]
fn squared_norms_are_right_and_the_same_everywhere() {
    for len in [0, 1, 3, 7, 17, 130, 3 * CHUNK + 17] {
        let x: Vec<f32> = values(6, len);
        let expected: f64 = x.iter().map(|&x| x as f64 * x as f64).sum();
        let mut reference = None;
        for cpu in handles::<f32>() {
            let got = squared_norm(&cpu, &buffer(&cpu, &x));
            close("squared norm", &[got], &[expected], 1e-12, 1e-300);
            same_bits(&format!("{cpu:?}"), &[got], &[*reference.get_or_insert(got)]);
        }
    }
}

#[test]
fn buffers_of_other_lengths_are_refused_by_name() {
    let cpu = cpu::<f32>();
    let [mut p, mut g, mut m, mut v, mut ema] = [4, 4, 4, 5, 4].map(|n| cpu.zeroed(n));
    let result = adamw(&cpu, &settings(1), &mut p, &mut g, &mut m, &mut v, &mut ema);
    assert_eq!(result.unwrap_err().to_string(), "adamw: v should be [4], but is [5]");
}
