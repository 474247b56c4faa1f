//! Packing and tiling in plain code, on any machine: as exact as promised, and with the bits of AMX where there is one.

#![allow(clippy::unwrap_used)]

use ddpm_tensor::{Cpu, Isa, Precision};

use super::Engine;
use crate::conv::cpu::engine::{self, forced};
use crate::conv::tests::{Case, PLAIN, results};
use crate::conv::{Geometry, Padding};
use crate::testing::{cpu, cpu_with, relative_norm, same_bits};

/// Largest relative norm of an error; 4.0e-6 was seen.
const F32: f64 = 6e-6;

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
fn plain_code_is_as_exact_as_promised_and_has_the_bits_of_amx() {
    let exact = cpu::<f64>();
    let amx: Option<Cpu<f32>> = "amx".parse::<Isa>().ok().map(|isa| cpu_with(2, isa, Precision::F32));
    for case in cases() {
        let mut got = Vec::new();
        forced::with(engine::Engine::Tiles(Engine::PLAIN), || {
            got = results(&cpu_with(3, Isa::PORTABLE, Precision::F32), case);
        });
        for (i, (got, expected)) in got.iter().zip(&results(&exact, case)).enumerate() {
            let error = relative_norm(got, expected);
            assert!(error <= F32, "{case:?} result {i}: relative norm of the error {error:.1e}");
        }
        if let Some(amx) = &amx {
            for (i, (got, expected)) in got.iter().zip(&results(amx, case)).enumerate() {
                same_bits(&format!("{case:?} result {i}"), got, expected);
            }
        }
    }
}
