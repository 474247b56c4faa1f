#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::{close, cpu, handles, same_bits, tensor, values};

const SIZES: [[usize; 4]; 6] =
    [[1, 1, 1, 1], [3, 17, 17, 3], [2, 1, 130, 7], [17, 3, 1, 130], [1, 33, 16, 17], [2, 4, 4, 0]];

fn check_pixel_sums<T: Element>(relative: f64) {
    for size in SIZES {
        let cpu = cpu::<T>();
        let x = tensor(&cpu, 1, size);
        let [n, h, w, c] = size;
        let mut expected = vec![0.0; n * c];
        for (i, v) in x.as_slice().iter().enumerate() {
            expected[i / (h * w * c) * c + i % c] += v.to_f64();
        }
        let sums = pixel_sums(&cpu, x.view()).unwrap();
        assert_eq!(sums.shape(), [n, c].into());
        close(&format!("{size:?}"), sums.as_slice(), &expected, relative, relative * (h * w) as f64);
    }
}

#[test]
fn pixel_sums_are_right() {
    check_pixel_sums::<f32>(1e-6);
    check_pixel_sums::<f64>(1e-14);
}

#[test]
fn pixel_sums_of_an_image_do_not_depend_on_the_batch_the_threads_or_the_isa() {
    for [n, h, w, c] in SIZES {
        let x: Vec<f32> = values(1, n * h * w * c);
        let mut reference = None;
        for cpu in handles::<f32>() {
            let whole = Tensor::from_slice(&cpu, [n, h, w, c], &x).unwrap();
            let sums = pixel_sums(&cpu, whole.view()).unwrap();
            let reference = reference.get_or_insert_with(|| sums.as_slice().to_vec());
            same_bits(&format!("{cpu:?}"), sums.as_slice(), reference);
            for i in 0..n {
                let image = View::of(whole.view().buffer(), i * h * w * c, [1, h, w, c]).unwrap();
                let alone = pixel_sums(&cpu, image).unwrap();
                same_bits("alone", alone.as_slice(), &sums.as_slice()[i * c..(i + 1) * c]);
            }
        }
    }
}

#[test]
fn batch_sums_and_scatter_are_right_and_halves_give_the_bits_of_the_whole() {
    for (n, c, table) in [(1, 1, 1), (3, 7, 2), (17, 130, 5), (32, 17, 3), (48, 1030, 4), (32, 3, 100)] {
        let rows: Vec<f32> = values(2, n * c);
        let before: Vec<f32> = values(3, (table + 2) * c);
        let indices: Vec<usize> = (0..n).map(|i| (i * i + i / 3) % table).collect();
        let mut reference = None;
        for cpu in handles::<f32>() {
            let run = |cuts: &[usize]| {
                let mut sums = Tensor::from_slice(&cpu, [(table + 2) * c], &before).unwrap();
                let mut scattered = Tensor::from_slice(&cpu, [(table + 2) * c], &before).unwrap();
                let rows = Tensor::from_slice(&cpu, [n, c], &rows).unwrap();
                let mut from = 0;
                for &to in cuts {
                    let part = View::of(rows.view().buffer(), from * c, [to - from, c]).unwrap();
                    batch_sums(&cpu, part, sums.view_mut().buffer(), c..2 * c).unwrap();
                    let mut view = scattered.view_mut();
                    scatter_rows(&cpu, part, &indices[from..to], view.buffer(), c..(table + 1) * c).unwrap();
                    from = to;
                }
                [sums.as_slice().to_vec(), scattered.as_slice().to_vec()]
            };
            let whole = run(&[n]);
            if n > 16 {
                let cut = run(&[16, n]);
                same_bits("sums in two parts", &cut[0], &whole[0]);
                same_bits("scattered in two parts", &cut[1], &whole[1]);
            }
            let reference: &[Vec<f32>; 2] = reference.get_or_insert_with(|| whole.clone());
            same_bits(&format!("sums, {cpu:?}"), &whole[0], &reference[0]);
            same_bits(&format!("scattered, {cpu:?}"), &whole[1], &reference[1]);
        }
        let [sums, scattered] = reference.unwrap();
        let mut expected_sums: Vec<f64> = before.iter().map(|v| v.to_f64()).collect();
        let mut expected_scattered = expected_sums.clone();
        for (i, v) in rows.iter().enumerate() {
            expected_sums[c + i % c] += v.to_f64();
            expected_scattered[(1 + indices[i / c]) * c + i % c] += v.to_f64();
        }
        close("sums", &sums, &expected_sums, 1e-6, 1e-5);
        close("scattered", &scattered, &expected_scattered, 1e-6, 1e-5);
    }
}

#[test]
fn rows_are_gathered() {
    let cpu = cpu::<f32>();
    let table = tensor(&cpu, 4, [5, 3]);
    let rows = gather_rows(&cpu, table.view(), &[4, 0, 0, 2]).unwrap();
    assert_eq!(rows.shape(), [4, 3].into());
    for (row, i) in rows.as_slice().chunks(3).zip([4, 0, 0, 2]) {
        assert_eq!(row, &table.as_slice()[3 * i..3 * i + 3]);
    }
    let message = gather_rows(&cpu, table.view(), &[5]).unwrap_err().to_string();
    assert_eq!(message, "gather_rows: row 5 of a table of 5 rows");
}

fn check_elementwise<T: Element>(relative: f64) {
    for len in [0, 1, 3, 17, 130, 2 * CHUNK + 5] {
        let (x, y): (Vec<T>, Vec<T>) = (values(5, len), values(6, len));
        let expected = |f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
            x.iter().zip(&y).map(|(x, y)| f(x.to_f64(), y.to_f64())).collect()
        };
        let mut reference = None;
        for cpu in handles::<T>() {
            let x = Tensor::from_slice(&cpu, [len], &x).unwrap();
            let mut sum = Tensor::from_slice(&cpu, [len], &y).unwrap();
            add_scaled(&cpu, &mut sum, -0.3, x.view()).unwrap();
            let line = affine(&cpu, x.view(), 0.5, 0.125).unwrap();
            close("add_scaled", sum.as_slice(), &expected(&|x, y| y - 0.3 * x), relative, relative);
            close("affine", line.as_slice(), &expected(&|x, _| 0.5 * x + 0.125), relative, relative);
            let reference: &(Vec<T>, Vec<T>) =
                reference.get_or_insert_with(|| (sum.as_slice().to_vec(), line.as_slice().to_vec()));
            same_bits("add_scaled", sum.as_slice(), &reference.0);
            same_bits("affine", line.as_slice(), &reference.1);
        }
    }
}

#[test]
fn elementwise_operations_are_right_and_the_same_everywhere() {
    check_elementwise::<f32>(3e-7);
    check_elementwise::<f64>(1e-15);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let cpu = cpu::<f32>();
    let rows = tensor(&cpu, 7, [4, 3]);
    let mut grads = cpu.zeroed(10);
    let message = batch_sums(&cpu, rows.view(), &mut grads, 0..4).unwrap_err().to_string();
    assert!(message.contains("batch_sums: the range of gradients should be [3]"), "{message}");
    let message = batch_sums(&cpu, rows.view(), &mut grads, 8..11).unwrap_err().to_string();
    assert!(message.contains("11 elements, but 10 came"), "{message}");
    let message = scatter_rows(&cpu, rows.view(), &[0, 1, 3, 0], &mut grads, 0..9).unwrap_err().to_string();
    assert_eq!(message, "scatter_rows: row 3 of a table of 3 rows");
    let message = scatter_rows(&cpu, rows.view(), &[0], &mut grads, 0..9).unwrap_err().to_string();
    assert!(message.contains("1 indices came for 4 images"), "{message}");
    let mut y = tensor(&cpu, 8, [4, 4]);
    assert!(add_scaled(&cpu, &mut y, 1.0, rows.view()).is_err());
}
