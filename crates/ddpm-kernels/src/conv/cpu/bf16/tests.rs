//! Packing and tiling in plain code, on any machine: as exact as promised, and with the bits of AMX where there is one.

#![allow(clippy::unwrap_used)]

use ddpm_tensor::{Cpu, Isa, Precision};

use super::Engine;
use crate::conv::cpu::engine::{self, forced};
use crate::conv::tests::{Case, PLAIN, results};
use crate::conv::{Geometry, Padding};
use crate::testing::{cpu, cpu_with, relative_norm, same_bits};

/// Largest relative norms of an error by the stand-ins in order; 5.7e-6 and 3.1e-3 were seen
const BOUNDS: [f64; 3] = [6e-6, 4e-3, 4e-3];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for g in [Geometry::THREE, Geometry::ONE, Geometry::down(Padding::Same), Geometry::down(Padding::End)] {
        let all = Case { g, h: 9, w: 7, groups: 6, silu: true, dropout: 0.3, epilogue: true, ..PLAIN };
        for (c, o) in [([16, 8], 17), ([30, 12], 33), ([48, 0], 40)] {
            cases.push(Case { c, o, ..all });
        }
        cases.push(Case { n: 18, h: 4, w: 5, c: [24, 0], o: 24, scale_shift: true, ..all });
        cases.push(Case { h: 5, w: 4, c: [18, 6], o: 16, nearest_2x: true, ..all });
    }
    cases
}

#[test]
fn plain_code_is_as_exact_as_promised_and_has_the_bits_of_the_units() {
    let exact = cpu::<f64>();
    let have = |name: &str, precision| {
        let isa: Isa = name.parse().ok()?;
        isa.multiplies_bf16().then(|| cpu_with(2, isa, precision))
    };
    let units: [Option<Cpu<f32>>; 3] =
        [have("amx", Precision::F32), have("amx", Precision::Bf16), have("avx512", Precision::Bf16)];
    for case in cases() {
        let expected = results(&exact, case);
        for ((plain, bound), unit) in Engine::PLAIN.into_iter().zip(BOUNDS).zip(&units) {
            let mut got = Vec::new();
            forced::with(engine::Engine::Tiles(plain), || {
                got = results(&cpu_with(3, Isa::PORTABLE, Precision::F32), case);
            });
            for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let error = relative_norm(got, expected);
                assert!(error <= bound, "{case:?} result {i}, {plain:?}: relative norm of the error {error:.1e}");
            }
            if let Some(unit) = unit {
                for (i, (got, expected)) in got.iter().zip(&results(unit, case)).enumerate() {
                    same_bits(&format!("{case:?} result {i}, {plain:?}"), got, expected);
                }
            }
        }
    }
}
