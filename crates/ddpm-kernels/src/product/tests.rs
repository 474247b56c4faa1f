use ddpm_tensor::Isa;

use super::*;
use crate::testing::{close, cpu_with, same_bits, values};

/// Sizes around every edge of tiles, panels and chains: (m, n, k).
const SIZES: [(usize, usize, usize); 10] = [
    (1, 1, 1),
    (3, 7, 17),
    (12, 32, 5),
    (13, 33, 130),
    (6, 16, 3),
    (23, 47, 64),
    (4, 130, 320),
    (5, 3, 321),
    (2, 31, 2500),
    (3, 5, 0),
];

/// The product as the module's contract reads, element by element.
fn by_definition<T: Element>(a: &[T], b: &[T], (m, n, k): (usize, usize, usize), add: bool, c: &[T]) -> Vec<T> {
    let mut out = Vec::new();
    for i in 0..m {
        for j in 0..n {
            let mut whole = if add { c[i * n + j] } else { T::ZERO };
            for first in (0..k).step_by(CHAIN) {
                let chain = (first..k.min(first + CHAIN)).fold(T::ZERO, |sum, l| a[i * k + l].fma(b[l * n + j], sum));
                whole = if add || first > 0 { whole + chain } else { chain };
            }
            out.push(whole);
        }
    }
    out
}

fn transpose<T: Element>(x: &[T], rows: usize, columns: usize) -> Vec<T> {
    (0..rows * columns).map(|i| x[i % rows * columns + i / rows]).collect()
}

fn check<T: Element>(relative: f64) {
    for size @ (m, n, k) in SIZES {
        let (a, b, c): (Vec<T>, Vec<T>, Vec<T>) = (values(1, m * k), values(2, k * n), values(3, m * n));
        let (a_t, b_t) = (transpose(&a, m, k), transpose(&b, k, n));
        for add in [false, true] {
            let expected = by_definition(&a, &b, size, add, &c);
            let exact: Vec<f64> = (0..m * n)
                .map(|e| {
                    let sum = |l: usize| a[e / n * k + l].to_f64() * b[l * n + e % n].to_f64();
                    (0..k).map(sum).sum::<f64>() + if add { c[e].to_f64() } else { 0.0 }
                })
                .collect();
            close(&format!("definition {size:?}"), &expected, &exact, relative, relative * (k + 1) as f64);
            for isa in Isa::all() {
                let cpu = cpu_with::<T>(1, isa, ddpm_tensor::Precision::Strict);
                for (turned_a, turned_b) in [(false, false), (true, false), (false, true), (true, true)] {
                    let a = if turned_a { Matrix::rows(&a_t, m).transposed() } else { Matrix::rows(&a, k) };
                    let b = if turned_b { Matrix::rows(&b_t, k).transposed() } else { Matrix::rows(&b, n) };
                    let b = Packed::new(&cpu, b, k, n);
                    // rows of C lie apart, and what is between them is left alone
                    let c_row = n + 3;
                    let mut got = vec![T::of(7.0); m * c_row];
                    for (to, from) in got.chunks_mut(c_row).zip(c.chunks(n)) {
                        to[..n].copy_from_slice(from);
                    }
                    multiply(a, m, &b, add, &mut got, c_row);
                    let (inside, between): (Vec<&[T]>, Vec<&[T]>) =
                        got.chunks(c_row).map(|row| row.split_at(n)).unzip();
                    same_bits(&format!("{size:?} {isa} {turned_a} {turned_b}"), &inside.concat(), &expected);
                    assert!(between.concat().iter().all(|&x| x == T::of(7.0)), "{size:?} {isa}: wrote past a row");
                }
            }
        }
    }
}

#[test]
fn products_have_the_bits_of_their_definition_on_every_instruction_set() {
    check::<f32>(1e-6);
    check::<f64>(1e-15);
}
