//! Engines: how exact each is, and that its bits depend on nothing else.

use ddpm_tensor::{Isa, Precision};

use super::*;
use crate::testing::{cpu_with, relative_norm, strict};

/// Largest relative norm of an error in precision `f32`; 5.6e-6 was seen, in sums that nearly cancel.
const F32: f64 = 8e-6;

/// The same in precision `bf16`.
const BF16: f64 = 4e-3;

/// Sizes and channels that fill no tile, in all geometries and with all options.
fn grid() -> Vec<Case> {
    let mut grid = cases();
    for g in [Geometry::THREE, Geometry::ONE, Geometry::down(Padding::Same), Geometry::down(Padding::End)] {
        for side in [3, 8, 9, 17, 32, 33] {
            grid.push(Case {
                g,
                n: 1,
                h: side,
                w: side,
                c: [32, 0],
                o: 24,
                groups: 8,
                silu: true,
                epilogue: true,
                ..PLAIN
            });
        }
        for (c, o) in [(24, 32), (32, 48), (48, 96), (96, 130), (130, 128), (128, 8)] {
            grid.push(Case { g, h: 9, w: 8, c: [c, 0], o, silu: true, epilogue: true, ..PLAIN });
        }
        let all =
            Case { g, h: 8, w: 6, c: [40, 24], o: 40, groups: 8, silu: true, dropout: 0.3, epilogue: true, ..PLAIN };
        grid.extend([all, Case { scale_shift: true, ..all }, Case { nearest_2x: true, ..all }]);
        grid.push(Case { n: 35, w: 5, h: 4, dropout: 0.0, ..all });
    }
    grid
}

/// The largest relative norm of an error over the grid, which must be at most `bound`.
fn worst_error(handles: &[Cpu<f32>], bound: f64) -> f64 {
    let exact = strict::<f64>();
    let mut worst = 0.0f64;
    for case in grid() {
        let expected = results(&exact, case);
        for cpu in handles {
            for (i, (got, expected)) in results(cpu, case).iter().zip(&expected).enumerate() {
                let error = relative_norm(got, expected);
                worst = worst.max(error);
                assert!(error <= bound, "{case:?} {cpu:?} result {i}: relative norm of the error {error:.1e}");
            }
        }
    }
    worst
}

#[test]
fn f32_is_as_exact_as_promised() {
    let handles: Vec<_> = Isa::all().into_iter().map(|isa| cpu_with(2, isa, Precision::F32)).collect();
    let worst = worst_error(&handles, F32);
    // the bound is near what is seen
    assert!(worst > F32 / 8.0, "largest relative norm of an error: {worst:.1e}");
}

#[test]
fn bf16_is_as_exact_as_promised() {
    let isas = Isa::all().into_iter().filter(|isa| isa.multiplies_bf16());
    let handles: Vec<_> = isas.map(|isa| cpu_with(2, isa, Precision::Bf16)).collect();
    let worst = worst_error(&handles, BF16);
    assert!(handles.is_empty() || worst > BF16 / 8.0, "largest relative norm of an error: {worst:.1e}");
}

#[test]
fn no_bit_of_f32_depends_on_threads() {
    for case in grid() {
        for isa in Isa::all() {
            let reference = results(&cpu_with::<f32>(1, isa, Precision::F32), case);
            for cpu in [2, 3, 4, 7].map(|n| cpu_with(n, isa, Precision::F32)) {
                for (i, (got, expected)) in results(&cpu, case).iter().zip(&reference).enumerate() {
                    same_bits(&format!("{case:?} {cpu:?} result {i}"), got, expected);
                }
            }
        }
    }
}
