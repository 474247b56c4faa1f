//! What engines keep of frozen weights.

use ddpm_tensor::{Frozen, Isa};

use super::*;
use crate::testing::cpu_with;

/// Result and gradient of the operand.
fn passes(held: &Held<f32>, cpu: &Cpu<f32>) -> [Vec<f32>; 2] {
    let pulled = cpu.conv_input_grad(held.dy.view(), held.w.view(), held.case.g, &held.operand()).unwrap();
    [held.forward(cpu).y.as_slice().to_vec(), pulled.g.as_slice().to_vec()]
}

#[test]
fn frozen_weights_give_the_same_bits_and_are_never_out_of_date() {
    let silu = Case { silu: true, ..PLAIN };
    let cases = [
        Case { g: Geometry::ONE, c: [40, 0], o: 24, ..silu },
        Case { g: Geometry::down(Padding::End), h: 8, w: 8, c: [24, 8], o: 33, ..silu },
        // few tiles in two chains of sums, and many
        Case { n: 1, h: 8, w: 8, c: [330, 0], o: 40, ..silu },
        Case { n: 3, h: 28, w: 28, c: [32, 0], o: 48, ..silu },
    ];
    for case in cases {
        for isa in Isa::all() {
            for precision in [Precision::Strict, Precision::F32, Precision::Bf16] {
                let cpu = cpu_with(2, isa, precision);
                let about = format!("{case:?} {cpu:?}");
                let mut held = Held::new(&cpu, case);
                let expected = passes(&held, &cpu);
                let frozen = Frozen::<Cpu<f32>>::new(held.w.view().buffer());
                for _ in 0..2 {
                    let got = passes(&held, &cpu);
                    got.iter().zip(&expected).for_each(|(got, expected)| same_bits(&about, got, expected));
                }
                // both orders of the weights, which are no shorter than they
                let kept = held.w.view().buffer().kept_len();
                let least = held.w.shape().len() * if precision == Precision::Bf16 { 1 } else { 2 };
                assert!(kept >= least, "{about}: {kept} numbers are kept");
                // another handle may ask for another form of the same numbers
                let other = cpu_with(1, Isa::PORTABLE, Precision::Strict);
                let strict = passes(&held, &other);
                drop(frozen);
                assert_eq!(held.w.view().buffer().kept_len(), 0);
                let free = passes(&held, &other);
                strict.iter().zip(&free).for_each(|(got, expected)| same_bits(&about, got, expected));

                // the promise outlives the weights' values only if it is leaked
                #[allow(clippy::mem_forget)]
                std::mem::forget(Frozen::<Cpu<f32>>::new(held.w.view().buffer()));
                passes(&held, &cpu);
                held.w.as_mut_slice().iter_mut().for_each(|w| *w *= 2.0);
                let twice = expected.map(|all| all.into_iter().map(|x| 2.0 * x).collect::<Vec<_>>());
                let got = passes(&held, &cpu);
                got.iter().zip(&twice).for_each(|(got, expected)| same_bits(&about, got, expected));
            }
        }
    }
}
