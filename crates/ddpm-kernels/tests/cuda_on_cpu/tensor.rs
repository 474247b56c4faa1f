//! Convolutions and attention on tensor cores, in `f32` (split numbers) and `bf16` (rounded ones), on the stand-in GPU against the CPU's
//! `strict`.

use crate::attention;
use crate::conv::{Case, Halves, PLAIN};
use crate::host::{SCHEDULES, Schedule, ask, gpu, gpu_in};
use crate::support::{Compute, compare_on};
use ddpm_kernels::conv::{Geometry, Padding};
use ddpm_tensor::Precision;

/// Largest difference by the norm: of an operation that is right, in either precision.
const BOUNDS: [(Precision, f64); 2] = [(Precision::F32, 8e-6), (Precision::Bf16, 4e-3)];
/// All schedules are for [`every_schedule_gives_the_same_bits`].
const ONE: [Schedule; 1] = [SCHEDULES[2]];

fn compare_all(cases: impl IntoIterator<Item = Case>) {
    let mut largest = [0f64; 2];
    for case in cases {
        for ((precision, bound), largest) in BOUNDS.into_iter().zip(&mut largest) {
            let what = format!("{precision}, {case:?}");
            *largest = largest.max(compare_on(&gpu_in(precision), &ONE, &what, bound, &case));
        }
    }
    // what is rounded differs: else another kernel computed it
    assert!(largest[1] > 5e-4, "{largest:?}");
}

#[test]
fn channels_of_any_number() {
    for g in [Geometry::THREE, Geometry::ONE] {
        compare_all([(1, 1), (3, 40), (24, 33), (130, 17), (33, 66)].map(|(c, o)| Case {
            g,
            c: [c, 0],
            o,
            epilogue: true,
            ..PLAIN
        }));
    }
}

#[test]
fn images_of_any_size() {
    for g in [Geometry::THREE, Geometry::down(Padding::Same), Geometry::down(Padding::End)] {
        let sizes = [(2, 3, 3), (1, 9, 17), (1, 16, 4), (5, 2, 2), (1, 1, 40), (9, 4, 4)];
        let sizes = sizes.into_iter().filter(|&(_, h, w)| g.output(h, w).is_ok());
        compare_all(sizes.map(|(n, h, w)| Case {
            n,
            g,
            h,
            w,
            c: [16, 0],
            o: 32,
            groups: 4,
            silu: true,
            epilogue: true,
            ..PLAIN
        }));
    }
}

#[test]
fn every_schedule_gives_the_same_bits() {
    let case = Case { h: 9, w: 6, c: [20, 0], o: 24, groups: 4, silu: true, epilogue: true, ..PLAIN };
    for g in [Geometry::THREE, Geometry::ONE, Geometry::down(Padding::Same)] {
        for (precision, bound) in BOUNDS {
            compare_on(&gpu_in(precision), &SCHEDULES, &format!("{precision}, {g:?}"), bound, &Case { g, ..case });
        }
    }
    let case = attention::Case { n: 1, pixels: 70, channels: 40, heads: 2, scale: 0.2 };
    compare_on(&gpu_in(Precision::F32), &SCHEDULES, "attention", 8e-6, &case);
}

#[test]
fn operands_of_any_kind() {
    for g in [Geometry::THREE, Geometry::ONE, Geometry::down(Padding::End)] {
        let all = Case { g, c: [16, 8], o: 20, groups: 6, silu: true, dropout: 0.3, epilogue: true, ..PLAIN };
        // channels that four do not divide: parts and dropout blocks are straddled
        let odd = Case { c: [11, 9], groups: 5, ..all };
        compare_all([
            all,
            Case { scale_shift: true, ..odd },
            Case { nearest_2x: true, ..odd },
            Case { groups: 0, silu: false, ..odd },
        ]);
    }
}

#[test]
fn batches_chains_and_parts_of_any_length() {
    compare_all([
        // dense layers, and batches that are no multiple of 16
        Case { n: 19, h: 1, w: 1, c: [96, 0], o: 40, g: Geometry::ONE, silu: true, epilogue: true, ..PLAIN },
        Case { n: 70, h: 1, w: 1, c: [200, 0], o: 70, g: Geometry::ONE, epilogue: true, ..PLAIN },
        Case { n: 35, h: 3, w: 2, c: [20, 0], o: 9, groups: 5, silu: true, epilogue: true, ..PLAIN },
        // an image of one pixel under nine taps
        Case { n: 33, h: 1, w: 1, c: [5, 0], o: 6, ..PLAIN },
        // several parts of an image, and more than one chain of sums
        Case { n: 1, h: 40, w: 33, c: [4, 0], o: 4, groups: 2, silu: true, epilogue: true, ..PLAIN },
        Case { n: 1, h: 4, w: 4, c: [1100, 0], o: 5, g: Geometry::ONE, ..PLAIN },
        // parts of K
        Case { n: 3, h: 4, w: 4, c: [130, 0], o: 5, epilogue: true, ..PLAIN },
        Case { n: 1, h: 7, w: 8, c: [100, 60], o: 33, groups: 8, silu: true, epilogue: true, ..PLAIN },
    ]);
}

#[test]
fn micro_batches_add_up_to_the_bit() {
    for (g, side) in [(Geometry::THREE, 9), (Geometry::THREE, 2), (Geometry::ONE, 1), (Geometry::down(Padding::End), 6)]
    {
        for (precision, bound) in BOUNDS {
            compare_on(&gpu_in(precision), &ONE, &format!("{g:?} {side}"), bound, &Halves(g, side));
        }
    }
}

#[test]
fn every_size_of_block_gives_the_same_bits() {
    let case = Case { n: 3, h: 9, w: 8, c: [40, 0], o: 140, groups: 4, silu: true, epilogue: true, ..PLAIN };
    for g in [Geometry::THREE, Geometry::ONE] {
        for (precision, _) in BOUNDS {
            let [large, small] = [1, 100_000].map(|multiprocessors| {
                gpu(); // loads the driver
                ask("multiprocessors", multiprocessors);
                let cuda = gpu_in(precision);
                ask("multiprocessors", 1);
                Case { g, ..case }.on(&cuda)
            });
            assert!(large == small, "{precision}: other bits");
        }
    }
}

#[test]
fn attention_agrees() {
    for (n, pixels, channels, heads) in
        [(1, 1, 1, 1), (2, 16, 8, 1), (1, 65, 24, 2), (1, 130, 66, 1), (2, 7, 140, 2), (1, 17, 12, 12)]
    {
        let scale = 1.0 / ((channels / heads) as f32).sqrt();
        let case = attention::Case { n, pixels, channels, heads, scale };
        // in `bf16` too numbers are split
        let differences = [Precision::F32, Precision::Bf16]
            .map(|precision| compare_on(&gpu_in(precision), &ONE, &format!("{precision}, {case:?}"), 8e-6, &case));
        assert!(differences[0] > 0.0 && differences[0].to_bits() == differences[1].to_bits());
    }
}

#[test]
fn a_gpu_without_products_of_bf16_computes_as_in_strict() {
    let case = Case { c: [40, 0], o: 20, groups: 4, silu: true, epilogue: true, ..PLAIN };
    let strict = case.on(&gpu());
    ask("capability", 75);
    let turing = gpu_in(Precision::F32);
    let got = case.on(&turing);
    ask("capability", 80);
    assert!(got == strict, "other bits than in strict");
    assert!(case.on(&gpu_in(Precision::F32)) != strict, "the bits of strict on tensor cores");
}
