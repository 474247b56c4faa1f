//! The engine beside the direct one, over every option of operands and epilogues.

#![allow(clippy::unwrap_used)]

use ddpm_tensor::cpu::CpuBuffer;
use ddpm_tensor::{Cpu, Element, Precision};

use crate::Backend;
use crate::conv::cpu::engine::{Engine, forced};
use crate::conv::tests::{self, Case, Held, PLAIN};
use crate::testing::{cpu, same_bits, strict};

/// What is promised of an operation in f32.
const PROMISED: f64 = 8e-6;
/// The largest that was measured over these cases is 3.2e-6, of a sum of few elements; without sums 2.0e-6.
const MEASURED: f64 = 4e-6;
/// Of an element beside its size and the usual size; measured: 1.9e-5, where a norm stretches gradients.
const ELEMENT: f64 = 4e-5;

#[test]
fn the_definition_and_its_derivative() {
    forced::with(Engine::Winograd, || {
        tests::forward_is_the_definition();
        tests::statistics_are_those_of_what_was_stored();
        tests::backward_is_the_derivative();
    });
}

#[test]
fn no_bit_depends_on_threads_batch_or_instruction_set() {
    forced::with(Engine::Winograd, || {
        tests::same_bits_everywhere(Precision::F32);
        tests::no_bit_depends_on_the_batch();
    });
}

/// One image and several are computed in different orders, here over several chains of sums, and with images cut into parts.
#[test]
fn no_bit_depends_on_which_of_weights_and_tiles_pass_by() {
    let cpu = cpu::<f32>();
    let chains = Case { n: 15, h: 9, w: 9, c: [330, 0], o: 340, ..PLAIN };
    let parts = Case { n: 2, h: 41, w: 32, c: [130, 0], o: 33, ..PLAIN };
    for case in [chains, parts] {
        forced::with(Engine::Winograd, || {
            let (many, one) = (Held::new(&cpu, case), Held::new(&cpu, Case { n: 1, ..case }));
            let (y, first) = (many.forward(&cpu).y, one.forward(&cpu).y);
            same_bits("y", first.as_slice(), &y.as_slice()[..first.shape().len()]);
            let (dx, first) = (&many.backward(&cpu)[0], &one.backward(&cpu)[0]);
            same_bits("dx", first, &dx[..first.len()]);
        });
    }
}

/// Every size with every number of channels, and with them in turn every option.
fn cases() -> Vec<Case> {
    const CHANNELS: [usize; 9] = [1, 3, 8, 24, 32, 48, 96, 128, 130];
    let mut cases = Vec::new();
    for (i, size) in [1, 3, 8, 9, 17, 32, 33].into_iter().enumerate() {
        for (j, c) in CHANNELS.into_iter().enumerate() {
            let o = CHANNELS[(i + 2 * j) % CHANNELS.len()];
            let groups = [8, 5, 3, 1].into_iter().find(|g| c % g == 0).unwrap_or(1);
            let plain = Case { h: size, w: size, c: [c, 0], o, epilogue: (i + j) % 2 == 0, ..PLAIN };
            // the norm of one pixel has no gradient worth the name
            let norm = if size == 1 { plain } else { Case { groups, ..plain } };
            let all = Case { silu: true, dropout: 0.3, ..norm };
            cases.push(match (i + j) % 6 {
                0 => plain,
                1 => norm,
                2 => Case { silu: true, ..norm },
                3 => all,
                4 => Case { c: [c - c / 3, c / 3], scale_shift: norm.groups > 0, ..all },
                _ => Case { h: size.min(17), w: size.min(16), nearest_2x: true, ..all },
            });
        }
    }
    // more tiles than are kept at a time, in two groups
    cases.push(Case { n: 18, h: 33, w: 33, c: [128, 0], o: 130, groups: 8, silu: true, ..PLAIN });
    cases
}

fn results<T: Element>(cpu: &Cpu<T>, case: Case) -> Vec<Vec<f64>>
where
    Cpu<T>: Backend<Elem = T, Buffer = CpuBuffer<T>>,
{
    let held = Held::new(cpu, case);
    let mut all = held.backward(cpu);
    // the gradient of the weights, and apart from it those of gamma and beta
    let c = case.c[0] + case.c[1];
    let rest = all.last_mut().map(|grads| grads.split_off(9 * c * case.o));
    all.extend(rest);
    all.push(held.forward(cpu).y.as_slice().to_vec());
    all.into_iter().map(|v| v.into_iter().map(T::to_f64).collect()).collect()
}

/// Relative error of the whole, and the largest of an element over its size plus the root mean square of all.
fn errors(got: &[f64], expected: &[f64]) -> (f64, f64) {
    let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let differences: Vec<f64> = got.iter().zip(expected).map(|(a, b)| a - b).collect();
    let size = norm(expected).max(f64::MIN_POSITIVE);
    let usual = size / (expected.len() as f64).sqrt();
    let worst = differences.iter().zip(expected).map(|(d, e)| d.abs() / (usual + e.abs())).fold(0.0, f64::max);
    (norm(&differences) / size, worst)
}

#[test]
fn errors_are_as_small_as_promised() {
    let (fast, exact) = (cpu::<f32>(), strict::<f64>());
    let mut worst = (0.0, String::new());
    for case in cases() {
        let mut got = Vec::new();
        forced::with(Engine::Winograd, || got = results(&fast, case));
        for (i, (got, expected)) in got.iter().zip(&results(&exact, case)).enumerate() {
            if expected.is_empty() {
                continue;
            }
            let (error, element) = errors(got, expected);
            let name = || format!("{case:?} result {i}");
            assert!(error <= PROMISED, "{}: relative error {error:.2e}", name());
            assert!(element <= ELEMENT, "{}: an element errs by {element:.2e}", name());
            if error > worst.0 {
                worst = (error, name());
            }
        }
    }
    assert!(worst.0 <= MEASURED, "the largest relative error is {:.2e}: {}", worst.0, worst.1);
}
