#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::{close, cpu, finite_differences, handles, same_bits, values};

const KINDS: [LossKind; 4] =
    [LossKind::L2, LossKind::L1, LossKind::Huber { delta: 1.0 }, LossKind::Huber { delta: 0.3 }];
const SIZES: [[usize; 4]; 5] = [[1, 1, 1, 1], [3, 7, 3, 1], [2, 17, 1, 3], [5, 130, 130, 1], [2, 64, 64, 3]];

/// (loss, slope) as the definitions read.
fn by_definition(kind: LossKind, d: f64) -> (f64, f64) {
    match kind {
        LossKind::L2 => (d * d, 2.0 * d),
        LossKind::L1 => (d.abs(), if d == 0.0 { 0.0 } else { d.signum() }),
        LossKind::Huber { delta } => {
            let delta = delta as f64;
            if d.abs() <= delta { (d * d / 2.0, d) } else { (delta * (d.abs() - delta / 2.0), delta * d.signum()) }
        }
    }
}

fn weights(n: usize) -> Vec<f32> {
    (0..n).map(|i| 0.5 + i as f32).collect()
}

fn check<T: Element>(kind: LossKind, relative: f64) {
    for size in SIZES {
        let [n, h, w, c] = size;
        let each = h * w * c;
        let (output, target): (Vec<T>, Vec<T>) = (values(1, n * each), values(2, n * each));
        let scale = 1.0 / (n * each) as f64;
        let (mut losses, mut mses, mut gradient) = (vec![0.0; n], vec![0.0; n], Vec::new());
        for (i, (&o, &t)) in output.iter().zip(&target).enumerate() {
            let d = o.to_f64() - t.to_f64();
            let (loss, slope) = by_definition(kind, d);
            losses[i / each] += loss / each as f64;
            mses[i / each] += d * d / each as f64;
            gradient.push(slope * weights(n)[i / each] as f64 * scale);
        }
        let mut reference = None;
        for cpu in handles::<T>() {
            let output = Tensor::from_slice(&cpu, size, &output).unwrap();
            let target = Tensor::from_slice(&cpu, size, &target).unwrap();
            let got = loss(&cpu, kind, output.view(), target.view(), &weights(n), scale).unwrap();
            close("loss", &got.loss, &losses, relative, relative);
            close("mse", &got.mse, &mses, relative, relative);
            close("gradient", got.d_output.as_slice(), &gradient, relative, relative * scale);
            for i in 0..n {
                let image = |x: &Tensor<Cpu<T>>| x.as_slice()[i * each..(i + 1) * each].to_vec();
                let one = |x| Tensor::from_slice(&cpu, [1, h, w, c], &image(x)).unwrap();
                let (o, t) = (one(&output), one(&target));
                let alone = loss(&cpu, kind, o.view(), t.view(), &weights(n)[i..=i], scale).unwrap();
                same_bits("loss of one image", &alone.loss, &got.loss[i..=i]);
                same_bits("gradient of one image", alone.d_output.as_slice(), &image(&got.d_output));
            }
            let now = (got.loss, got.mse, got.d_output.as_slice().to_vec());
            let reference: &(Vec<f64>, Vec<f64>, Vec<T>) = reference.get_or_insert_with(|| now.clone());
            same_bits(&format!("loss, {cpu:?}"), &now.0, &reference.0);
            same_bits(&format!("mse, {cpu:?}"), &now.1, &reference.1);
            same_bits(&format!("gradient, {cpu:?}"), &now.2, &reference.2);
        }
    }
}

#[test]
fn losses_are_right_and_the_same_everywhere() {
    for kind in KINDS {
        check::<f32>(kind, 1e-6);
        check::<f64>(kind, 1e-13);
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let cpu = cpu::<f64>();
    let (size, each) = ([3, 3, 7, 1], 21);
    let x: Vec<f64> = values(3, 3 * each);
    let target = Tensor::from_slice(&cpu, size, &values(4, 3 * each)).unwrap();
    let scale = 1.0 / (3 * each) as f64;
    for kind in KINDS {
        let at = |x: &[f64]| {
            let output = Tensor::from_slice(&cpu, size, x).unwrap();
            loss(&cpu, kind, output.view(), target.view(), &weights(3), scale).unwrap()
        };
        let gradient = at(&x).d_output.as_slice().to_vec();
        finite_differences(&format!("{kind:?}"), &x, &gradient, 1, |x| {
            at(x).loss.iter().zip(weights(3)).map(|(l, w)| l * w as f64).sum::<f64>() / 3.0
        });
    }
}

#[test]
fn a_nan_is_not_hidden_and_zero_has_no_slope() {
    let cpu = cpu::<f32>();
    for kind in KINDS {
        let output = Tensor::from_slice(&cpu, [2, 2], &[f32::NAN, 1.0, 2.0, 2.0]).unwrap();
        let target = Tensor::from_slice(&cpu, [2, 2], &[0.0, 1.0, 2.0, 2.0]).unwrap();
        let got = loss(&cpu, kind, output.view(), target.view(), &[1.0, 1.0], 1.0).unwrap();
        assert!(got.loss[0].is_nan() && got.mse[0].is_nan() && got.d_output.as_slice()[0].is_nan());
        assert_eq!((got.loss[1], got.mse[1]), (0.0, 0.0));
        assert_eq!(got.d_output.as_slice()[1..], [0.0; 3]);
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let cpu = cpu::<f32>();
    let x = Tensor::zeros(&cpu, [2, 3]).unwrap();
    let y = Tensor::zeros(&cpu, [2, 4]).unwrap();
    let message = loss(&cpu, LossKind::L2, x.view(), y.view(), &[1.0; 2], 1.0).unwrap_err().to_string();
    assert_eq!(message, "loss: the target should be [2, 3], but is [2, 4]");
    let message = loss(&cpu, LossKind::L2, x.view(), x.view(), &[1.0; 3], 1.0).unwrap_err().to_string();
    assert_eq!(message, "loss: 3 weights came for 2 images");
    for delta in [0.0, -1.0, f32::NAN] {
        assert!(loss(&cpu, LossKind::Huber { delta }, x.view(), x.view(), &[1.0; 2], 1.0).is_err());
    }
}
