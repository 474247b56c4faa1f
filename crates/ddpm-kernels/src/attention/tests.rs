#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::{close, cpu, finite_differences, handles, same_bits, tensor, values};

/// (images, pixels, channels, heads)
const SIZES: [(usize, usize, usize, usize); 8] = [
    (1, 1, 1, 1),
    (2, 3, 7, 1),
    (3, 17, 6, 3),
    (1, 130, 17, 1),
    (2, 130, 34, 2),
    (2, 64, 64, 1),
    (1, 300, 8, 8),
    (1, 1030, 3, 1),
];

/// Output and gradients by loops in f64.
fn by_definition(
    [q, k, v, d_o]: [&[f64]; 4],
    (n, p, c, heads): (usize, usize, usize, usize),
    scale: f64,
) -> [Vec<f64>; 4] {
    let mut out = [(); 4].map(|()| vec![0.0; n * p * c]);
    let size = c / heads;
    for job in 0..n * heads {
        let at = |i: usize, e: usize| (job / heads * p + i) * c + job % heads * size + e;
        let dot = |x: &[f64], i, y: &[f64], j| (0..size).map(|e| x[at(i, e)] * y[at(j, e)]).sum::<f64>();
        for i in 0..p {
            let scores: Vec<f64> = (0..p).map(|j| scale * dot(q, i, k, j)).collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp() / sum).collect();
            let d_weights: Vec<f64> = (0..p).map(|j| dot(d_o, i, v, j)).collect();
            let mean: f64 = weights.iter().zip(&d_weights).map(|(w, d)| w * d).sum();
            for j in 0..p {
                let d_score = scale * weights[j] * (d_weights[j] - mean);
                for e in 0..size {
                    out[0][at(i, e)] += weights[j] * v[at(j, e)];
                    out[1][at(i, e)] += d_score * k[at(j, e)];
                    out[2][at(j, e)] += d_score * q[at(i, e)];
                    out[3][at(j, e)] += weights[j] * d_o[at(i, e)];
                }
            }
        }
    }
    out
}

/// Output, dq, dk, dv.
fn run<T: Element>(cpu: &Cpu<T>, x: [View<'_, Cpu<T>>; 4], heads: usize, scale: f32) -> [Vec<T>; 4] {
    let [q, k, v, d_o] = x;
    let o = attention(cpu, q, k, v, heads, scale).unwrap();
    let [dq, dk, dv] = attention_grad(cpu, q, k, v, d_o, heads, scale).unwrap();
    [o, dq, dk, dv].map(|t| {
        assert_eq!(t.shape(), q.shape());
        t.as_slice().to_vec()
    })
}

fn check<T: Element>(relative: f64, absolute: f64) {
    for size @ (n, p, c, heads) in SIZES {
        let scale = 1.0 / ((c / heads) as f32).sqrt();
        let x: [Vec<T>; 4] = [1, 2, 3, 4].map(|stream| values(stream, n * p * c));
        let as_f64 = x.each_ref().map(|x| x.iter().map(|v| v.to_f64()).collect::<Vec<_>>());
        let expected = by_definition(as_f64.each_ref().map(|x| &x[..]), size, scale as f64);
        let mut reference = None;
        for cpu in handles::<T>() {
            let tensors = x.each_ref().map(|x| Tensor::from_slice(&cpu, [n, p, c], x).unwrap());
            let got = run(&cpu, tensors.each_ref().map(|t| t.view()), heads, scale);
            let reference: &[Vec<T>; 4] = reference.get_or_insert_with(|| got.clone());
            for (i, name) in ["o", "dq", "dk", "dv"].into_iter().enumerate() {
                let name = format!("{name} of {size:?}, {cpu:?}");
                close(&name, &got[i], &expected[i], relative, absolute);
                same_bits(&name, &got[i], &reference[i]);
            }
            for image in 0..n {
                let one = |t: &Tensor<Cpu<T>>| {
                    let part = &t.as_slice()[image * p * c..(image + 1) * p * c];
                    Tensor::from_slice(&cpu, [1, p, c], part).unwrap()
                };
                let tensors = tensors.each_ref().map(one);
                let alone = run(&cpu, tensors.each_ref().map(|t| t.view()), heads, scale);
                for (alone, got) in alone.iter().zip(&got) {
                    same_bits("one image alone", alone, &got[image * p * c..(image + 1) * p * c]);
                }
            }
        }
    }
}

#[test]
fn f32_is_right_and_the_same_everywhere() {
    check::<f32>(2e-6, 2e-6);
}

#[test]
fn f64_is_right_and_the_same_everywhere() {
    check::<f64>(1e-13, 1e-13);
}

#[test]
fn gradients_agree_with_finite_differences() {
    let cpu = cpu::<f64>();
    for (n, p, c, heads) in [(2, 5, 6, 2), (1, 70, 3, 1)] {
        let shape = [n, p, c];
        let x = [1, 2, 3, 4].map(|stream| tensor(&cpu, stream, shape));
        let [_, dq, dk, dv] = run(&cpu, x.each_ref().map(|t| t.view()), heads, 0.7);
        for (which, gradient) in [dq, dk, dv].iter().enumerate() {
            let name = format!("gradient of {}", ["q", "k", "v"][which]);
            finite_differences(&name, x[which].as_slice(), gradient, 1 + p / 10, |changed| {
                let changed = Tensor::from_slice(&cpu, shape, changed).unwrap();
                let [q, k, v] = [0, 1, 2].map(|i| if i == which { changed.view() } else { x[i].view() });
                let o = attention(&cpu, q, k, v, heads, 0.7).unwrap();
                o.as_slice().iter().zip(x[3].as_slice()).map(|(o, d)| o * d).sum()
            });
        }
    }
}

#[test]
fn large_scores_do_not_overflow_and_a_nan_is_not_hidden() {
    let cpu = cpu::<f32>();
    let q = Tensor::from_slice(&cpu, [1, 2, 2], &[1e4, 0.0, f32::NAN, 0.0]).unwrap();
    let k = Tensor::from_slice(&cpu, [1, 2, 2], &[1e4, 0.0, -1e4, 0.0]).unwrap();
    let v = Tensor::from_slice(&cpu, [1, 2, 2], &[1.0, 2.0, 3.0, 4.0]).unwrap();
    let o = attention(&cpu, q.view(), k.view(), v.view(), 1, 1.0).unwrap();
    assert_eq!(o.as_slice()[..2], [1.0, 2.0]);
    assert!(o.as_slice()[2..].iter().all(|x| x.is_nan()));
}

#[test]
fn images_of_four_dimensions_are_taken_and_what_does_not_fit_is_refused_by_name() {
    let cpu = cpu::<f32>();
    let x = tensor(&cpu, 1, [2, 3, 5, 4]);
    let flat = View::of(x.view().buffer(), 0, [2, 15, 4]).unwrap();
    let o = attention(&cpu, x.view(), x.view(), x.view(), 2, 0.5).unwrap();
    assert_eq!(o.shape(), x.shape());
    same_bits("flattened", attention(&cpu, flat, flat, flat, 2, 0.5).unwrap().as_slice(), o.as_slice());
    let message = attention(&cpu, x.view(), x.view(), x.view(), 3, 0.5).unwrap_err().to_string();
    assert_eq!(message, "attention: 4 channels cannot be shared among 3 heads");
    let message = attention(&cpu, x.view(), flat, x.view(), 1, 0.5).unwrap_err().to_string();
    assert_eq!(message, "attention: k should be [2, 3, 5, 4], but is [2, 15, 4]");
    assert!(attention_grad(&cpu, x.view(), x.view(), x.view(), flat, 1, 0.5).is_err());
    let empty = Tensor::zeros(&cpu, [0, 15, 4]).unwrap();
    assert!(attention(&cpu, empty.view(), empty.view(), empty.view(), 1, 0.5).unwrap().shape().is_empty());
}
