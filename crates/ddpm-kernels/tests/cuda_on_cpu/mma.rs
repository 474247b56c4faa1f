//! The warp instructions of `kernels/mma.cuh` on the CPU against what the PTX ISA says of them: where each lane's registers
//! lie in the matrices ("Matrix fragments for mma.m16n8k16 with floating point type"; "ldmatrix"), and `cp.async`.

use crate::host::{Argument, Launch, SCHEDULES, Schedule, launch};

fn run(kernel: &str, schedule: Schedule, arguments: &[Argument]) -> Result<(), String> {
    let run = Launch { grid: [1, 1, 1], block: [32, 1, 1], schedule };
    // SAFETY: each test gives its kernel's arguments, of the sizes that the kernel says.
    unsafe { launch(kernel, run, arguments) }
}

/// A number of bf16 from few digits, so that sums of products are exact.
fn small(hash: usize) -> u16 {
    let number = (hash.wrapping_mul(0x9e37_79b9) >> 7 & 31) as f32 - 15.0;
    (number.to_bits() >> 16) as u16
}

fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

fn pack(low: u16, high: u16) -> u32 {
    u32::from(low) | u32::from(high) << 16
}

#[test]
fn products_are_of_the_elements_that_the_isa_names() {
    let a: Vec<Vec<u16>> = (0..16).map(|row| (0..16).map(|k| small(31 * row + k)).collect()).collect();
    let b: Vec<Vec<u16>> = (0..16).map(|k| (0..8).map(|column| small(977 + 17 * k + column)).collect()).collect();
    let c = |row: usize, column: usize| (row * 8 + column) as f32;
    let (mut of_a, mut of_b, mut sums) = (vec![], vec![], vec![]);
    for lane in 0..32 {
        let (group, thread) = (lane >> 2, lane % 4);
        // a_i: row = group for 0 <= i < 2 and 4 <= i < 6, else group + 8; column = 2 thread + (i & 1), + 8 for i >= 4
        let element = |i: usize| {
            let row = if (0..2).contains(&i) || (4..6).contains(&i) { group } else { group + 8 };
            a[row][2 * thread + (i & 1) + if i >= 4 { 8 } else { 0 }]
        };
        of_a.extend((0..4).map(|i| pack(element(2 * i), element(2 * i + 1))));
        // b_i: row = 2 thread + (i & 1), + 8 for i >= 2; column = group
        let element = |i: usize| b[2 * thread + (i & 1) + if i >= 2 { 8 } else { 0 }][group];
        of_b.extend((0..2).map(|i| pack(element(2 * i), element(2 * i + 1))));
        // c_i: row = group for i < 2, else group + 8; column = 2 thread + (i & 1)
        sums.extend((0..4).map(|i| c(if i < 2 { group } else { group + 8 }, 2 * thread + (i & 1))));
    }
    for schedule in SCHEDULES {
        let mut got = sums.clone();
        let arguments = [Argument::input(&of_a), Argument::input(&of_b), Argument::output(&mut got)];
        run("mma_probe", schedule, &arguments).unwrap();
        for (i, &got) in got.iter().enumerate() {
            let (lane, i) = (i / 4, i % 4);
            let (row, column) = (lane / 4 + if i < 2 { 0 } else { 8 }, 2 * (lane % 4) + i % 2);
            let products = (0..16).map(|k| widen(a[row][k]) * widen(b[k][column]));
            assert_eq!(got, c(row, column) + products.sum::<f32>(), "row {row}, column {column}, {schedule:?}");
        }
    }
}

/// Every element's sum of the same numbers.
fn sum(a: f32, b: f32, c: f32) -> f32 {
    let pair = |x: f32| pack((x.to_bits() >> 16) as u16, (x.to_bits() >> 16) as u16);
    let (a, b, mut sums) = (vec![pair(a); 128], vec![pair(b); 64], vec![c; 128]);
    let arguments = [Argument::input(&a), Argument::input(&b), Argument::output(&mut sums)];
    run("mma_probe", Schedule::Forward, &arguments).unwrap();
    assert!(sums.iter().all(|sum| sum.to_bits() == sums[0].to_bits()));
    sums[0]
}

#[test]
fn sums_are_cut_off_as_a_tensor_core_at_worst_does() {
    let unit = 2f32.powi(-23);
    // each product is below the last digit of the sum so far, all 16 of them are not
    assert_eq!(sum(1.0, 0.5 * unit, 1.0), 1.0);
    assert_eq!(sum(1.0, unit, 1.0), 1.0 + 16.0 * unit);
    assert_eq!(sum(1.0, -1.5 * unit, 4.0), 4.0);
    assert_eq!(sum(1.0, 1.0, 2f32.powi(24)), 2f32.powi(24));
    assert_eq!(sum(0.0, 1.0, -0.75), -0.75);
    assert_eq!(sum(3.0, 0.5, 0.0), 24.0);
    assert_eq!(sum(1e-30, 1e-30, 0.0), 0.0);
    assert!(sum(f32::INFINITY, 1.0, 0.0) == f32::INFINITY && sum(f32::NAN, 1.0, 0.0).is_nan());
    assert!(sum(f32::INFINITY, 0.0, 1.0).is_nan());
}

#[test]
fn matrices_are_loaded_as_the_isa_says() {
    // 512 numbers of 16 bits, and rows of eight of them in no order
    let words: Vec<u32> = (0..256).map(|i| pack(2 * i as u16, 2 * i as u16 + 1)).collect();
    let rows: Vec<u32> = (0..32).map(|lane| (lane * 7 + 3) % 32 * 4 + lane % 2 * 128).collect();
    for (count, name) in [(1, "load_probe_1"), (2, "load_probe_2"), (4, "load_probe_4")] {
        for turned in [false, true] {
            let kernel = if turned { format!("{name}_turned") } else { name.to_owned() };
            // element (row, column) of matrix i, whose rows lanes 8 i .. 8 i + 8 name
            let element = |i: usize, row: usize, column: usize| rows[8 * i + row] as usize * 2 + column;
            let mut got = vec![0u32; 32 * count];
            let arguments = [Argument::input(&words), Argument::input(&rows), Argument::output(&mut got)];
            run(&kernel, Schedule::Shuffled(3), &arguments).unwrap();
            for lane in 0..32 {
                for i in 0..count {
                    let (row, column) = (lane / 4, 2 * (lane % 4));
                    let expected = [column, column + 1].map(|column| {
                        let number = if turned { element(i, column, row) } else { element(i, row, column) };
                        number as u16
                    });
                    assert_eq!(got[lane * count + i], pack(expected[0], expected[1]), "{kernel}, lane {lane}, {i}");
                }
            }
        }
    }
    let crooked = [1u32; 32];
    let mut got = vec![0u32; 32];
    let arguments = [Argument::input(&words), Argument::input(&crooked), Argument::output(&mut got)];
    let error = run("load_probe_1", Schedule::Forward, &arguments).unwrap_err();
    assert!(error.contains("ldmatrix of a row that is not aligned") && error.contains("mma_probe.cu:"), "{error}");
}

#[test]
fn copies_arrive_when_they_are_waited_for_and_not_before() {
    let words: Vec<u32> = (0..256).collect();
    let mut got = vec![0u32; 512];
    run("copy_probe", Schedule::Reverse, &[Argument::input(&words), Argument::output(&mut got)]).unwrap();
    let (first, both) = got.split_at(256);
    for (i, &word) in first.iter().enumerate() {
        assert_eq!(word, if i % 8 < 4 { i as u32 } else { u32::MAX });
    }
    assert_eq!(both, words);
    let error = run("copy_probe", Schedule::Forward, &[Argument::input(&words[1..]), Argument::output(&mut got)]);
    assert!(error.unwrap_err().contains("cp.async of what is not aligned"));
}

#[test]
fn a_product_without_all_lanes_is_reported() {
    for schedule in SCHEDULES {
        let error = run("half_a_warp", schedule, &[Argument::output(&mut [0f32; 32])]).unwrap_err();
        assert!(error.contains("mma"), "{error}");
    }
}

#[test]
fn parts_are_as_exact_as_two_numbers_of_bf16_can_be() {
    let mut x: Vec<f32> = (1..20_000u32).map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9) & 0xbfff_ffff)).collect();
    x.retain(|x| x.abs() > 1e-30);
    x.truncate(x.len() / 2 * 2);
    let mut got = vec![0u32; x.len()];
    let arguments = [Argument::input(&x), Argument::output(&mut got), Argument::value(x.len() as u32 / 2)];
    run("parts_probe", Schedule::Forward, &arguments).unwrap();
    let mut worst = 0f64;
    for (x, parts) in x.chunks(2).zip(got.chunks(2)) {
        for (i, &x) in x.iter().enumerate() {
            let part = |word: u32| f64::from(widen((word >> (16 * i)) as u16));
            worst = worst.max((part(parts[0]) + part(parts[1]) - f64::from(x)).abs() / f64::from(x.abs()));
        }
    }
    assert!(worst > 0.0 && worst <= 2f64.powi(-17), "worst relative error {worst:e}");
    // ties go to even, and what is not a number stays so
    let ties = [f32::from_bits(0x3f80_8000), f32::from_bits(0x3f81_8000), f32::NAN, f32::INFINITY];
    let mut got = vec![0u32; 4];
    let arguments = [Argument::input(&ties), Argument::output(&mut got), Argument::value(2u32)];
    run("parts_probe", Schedule::Forward, &arguments).unwrap();
    assert_eq!(got[0], pack(0x3f80, 0x3f82));
    assert!(widen(got[2] as u16).is_nan() && widen((got[2] >> 16) as u16) == f32::INFINITY);
}
