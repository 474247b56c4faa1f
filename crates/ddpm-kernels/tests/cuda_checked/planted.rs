//! The checker itself: planted faults are found, and sound kernels left alone.

use crate::checker;
use crate::host::{Argument, Launch, Schedule, launch};

const HERE: &str = "planted_races.cu:";

/// Sixteen-byte aligned, as device memory is.
#[repr(align(64))]
struct Numbers([u32; 2048]);

/// Runs a kernel over blocks of 64 threads, and tells what was found.
fn found(kernel: &str, blocks: u32, schedule: Schedule, reads: bool) -> Vec<String> {
    let (input, mut output) = (Numbers([0; 2048]), Numbers([0; 2048]));
    let mut arguments = vec![Argument::output(&mut output.0)];
    if reads {
        arguments.insert(0, Argument::input(&input.0));
    }
    let sizes = Launch { grid: [blocks, 1, 1], block: [64, 1, 1], schedule };
    checker::races();
    // SAFETY: the kernels take one or two pointers to at most 2048 numbers.
    unsafe { launch(kernel, sizes, &arguments) }.unwrap();
    checker::races()
}

/// The line of `planted_races.cu` that holds `text`, as reports name it.
fn line(text: &str) -> String {
    let source = include_str!("../cuda_on_cpu/host/planted_races.cu");
    let line = source.lines().position(|line| line.contains(text)).unwrap();
    format!("{HERE}{}", line + 1)
}

const SCHEDULES: [Schedule; 3] = [Schedule::Forward, Schedule::Reverse, Schedule::Shuffled(3)];

#[test]
fn every_planted_race_is_found_under_any_schedule() {
    let expect = |kernel: &str, blocks, reads, what: &[&str]| {
        for schedule in SCHEDULES {
            let all = found(kernel, blocks, schedule, reads);
            let holds = |report: &String| report.starts_with(kernel) && what.iter().all(|part| report.contains(part));
            assert!(all.iter().any(holds), "{kernel} under {schedule:?}: no {what:?} in {all:#?}");
        }
    };
    let read = "tile[threadIdx.x ^ 1]";
    expect("race_in_block", 1, true, &["reads shared", &line(read), "was written by thread", "of block (0, 0, 0)"]);
    expect("race_of_rounds", 1, true, &["writes shared", &line("+ round"), "was read by", &line("tile[63 - thr")]);
    expect("race_of_writers", 1, false, &["writes global", "was written by thread", &line("out[0] =")]);
    expect("race_of_blocks", 4, false, &["writes global", "was written by", &line("out[blockIdx.x / 2]")]);
    expect("race_across_blocks", 4, false, &["global", &line("out[blockIdx.x + 1]"), "by thread (0, 0, 0) of block"]);
    expect(
        "unwritten_shared",
        2,
        true,
        &["which its block never wrote", &line("out[threadIdx.x] = tile[threadIdx.x];")],
    );
    expect("race_in_warp", 1, true, &["reads shared", &line("tile[threadIdx.x + 16]"), "was written by"]);
    expect("race_despite_shuffle", 1, true, &["shared", &line("= tile[other]"), "by thread"]);
}

#[test]
fn sound_kernels_are_left_alone() {
    for schedule in SCHEDULES {
        for (kernel, blocks) in [("halves_of_words", 1), ("orders_of_every_kind", 5)] {
            assert_eq!(found(kernel, blocks, schedule, true), [""; 0], "{kernel} under {schedule:?}");
        }
    }
}

#[test]
fn an_ignored_barrier_is_missed() {
    let source = include_str!("../cuda_on_cpu/host/planted_races.cu");
    let first = source.lines().position(|line| line.contains("orders_of_every_kind")).unwrap();
    let mut missed = 0;
    for (i, text) in source.lines().enumerate().skip(first).take_while(|(_, text)| !text.starts_with('}')) {
        if text.contains("__sync") {
            checker::ignore(&format!("{HERE}{}", i + 1));
            let all = found("orders_of_every_kind", 2, Schedule::Forward, true);
            checker::ignore("");
            assert!(!all.is_empty(), "{text}");
            missed += 1;
        }
    }
    assert_eq!(missed, 4);
}

#[test]
fn sectors_and_conflicts_are_counted() {
    let run = |stride: i32| {
        let mut output = Numbers([0; 2048]);
        let arguments = [Argument::output(&mut output.0), Argument::value(stride)];
        let sizes = Launch { grid: [1, 1, 1], block: [64, 1, 1], schedule: Schedule::Reverse };
        // SAFETY: the kernel takes a pointer to 64 stride floats, and a number.
        checker::counts(|| unsafe { launch("strided", sizes, &arguments) }.unwrap())
    };
    // two warps: sectors of the stores to global memory, conflicts of those to shared memory
    for (stride, sectors, degree) in [(1, 8, 1), (2, 16, 2), (4, 32, 4), (8, 64, 8), (9, 64, 1), (16, 64, 16)] {
        let counts = run(stride);
        let of = |kind: &str| counts.iter().find(|c| c.kind == kind).unwrap().clone();
        let global = of("global store");
        assert_eq!(global.ideal, 8, "{global:?}");
        assert_eq!(global.cost, sectors, "stride {stride}: {global:?}");
        let shared = of("shared store");
        assert_eq!((shared.cost, shared.worst), (2 * degree, degree), "stride {stride}: {shared:?}");
    }
    let (input, mut output) = (Numbers([0; 2048]), Numbers([0; 2048]));
    let arguments = [Argument::input(&input.0), Argument::output(&mut output.0)];
    let sizes = Launch { grid: [1, 1, 1], block: [64, 1, 1], schedule: Schedule::Forward };
    // SAFETY: the kernel takes two pointers to 256 floats.
    let counts = checker::counts(|| unsafe { launch("vectors", sizes, &arguments) }.unwrap());
    // a vector is one access
    let all: Vec<_> = counts.iter().map(|c| (c.kind.as_str(), c.requests, c.cost, c.ideal)).collect();
    assert_eq!(all, [("global load", 2, 32, 32), ("global store", 2, 32, 32)]);
}
