//! The harness itself: sound kernels pass under every schedule, planted faults are found.

use crate::host::{Argument, Launch, SCHEDULES, Schedule, launch};

fn run_on(kernel: &str, blocks: u32, threads: u32, schedule: Schedule, arguments: &[Argument]) -> Result<(), String> {
    let run = Launch { grid: [blocks, 1, 1], block: [threads, 1, 1], schedule };
    // SAFETY: each test below gives its kernel's arguments, and buffers of a number for each thread (or more).
    unsafe { launch(kernel, run, arguments) }
}

/// A kernel from one buffer to another, `blocks` blocks of `threads`, under a schedule.
fn map(kernel: &str, blocks: u32, threads: u32, schedule: Schedule) -> Vec<i32> {
    let input: Vec<i32> = (0..(blocks * threads) as i32).collect();
    let mut output = vec![-1; input.len()];
    run_on(kernel, blocks, threads, schedule, &[Argument::input(&input), Argument::output(&mut output)]).unwrap();
    output
}

#[test]
fn a_barrier_holds_under_every_schedule() {
    for threads in [1, 31, 32, 33, 256, 1024] {
        let expected: Vec<i32> =
            (0..3).flat_map(|block| (0..threads as i32).rev().map(move |i| block * threads as i32 + i)).collect();
        for schedule in SCHEDULES {
            assert_eq!(map("reverse", 3, threads, schedule), expected, "{threads} threads, {schedule:?}");
        }
    }
}

#[test]
fn a_missing_barrier_is_found_by_comparing_schedules() {
    let results = SCHEDULES.map(|schedule| map("reverse_without_barrier", 3, 256, schedule));
    for (i, a) in results.iter().enumerate() {
        for (j, b) in results[..i].iter().enumerate() {
            assert_ne!(a, b, "{:?} and {:?}", SCHEDULES[i], SCHEDULES[j]);
        }
    }
}

#[test]
fn blocks_that_wait_for_each_other_are_found_by_comparing_schedules() {
    let run = |schedule| {
        let mut out = vec![0; 9];
        run_on("chain_of_blocks", 8, 32, schedule, &[Argument::output(&mut out)]).unwrap();
        out
    };
    assert_eq!(run(Schedule::Forward), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_ne!(run(Schedule::Forward), run(Schedule::Reverse));
    assert_ne!(run(Schedule::Forward), run(Schedule::Shuffled(1)));
}

#[test]
fn shuffles_and_ballots_follow_cuda() {
    for schedule in SCHEDULES {
        for threads in [32, 64, 256, 1024] {
            let input: Vec<i32> = (0..2 * threads).map(|i| i * i + 3).collect();
            let (mut sums, mut odd) = (vec![0; 2], vec![0u32; 2]);
            let arguments = [Argument::input(&input), Argument::output(&mut sums), Argument::output(&mut odd)];
            run_on("sum_block", 2, threads as u32, schedule, &arguments).unwrap();
            let expected: Vec<i32> = input.chunks(threads as usize).map(|block| block.iter().sum()).collect();
            assert_eq!(sums, expected, "{threads} threads, {schedule:?}");
            // i² + 3 is odd where i is even; both blocks begin at an even i.
            assert_eq!(odd, [0x5555_5555; 2]);
        }
    }
}

#[test]
fn a_deadlock_is_reported_with_who_waits_where() {
    for schedule in SCHEDULES {
        let mut out = vec![0; 32];
        let error = run_on("deadlock", 1, 32, schedule, &[Argument::output(&mut out)]).unwrap_err();
        for part in ["deadlock", "16 threads wait at __shfl_sync", "16 threads wait at __syncthreads", "planted.cu:"] {
            assert!(error.contains(part), "no {part:?} in: {error}");
        }
        let error = run_on("divergent_barrier", 1, 32, schedule, &[Argument::output(&mut out)]).unwrap_err();
        assert!(error.contains("wait at different barriers"), "{error}");
        // And the harness works on after an error.
        assert_eq!(map("reverse", 1, 2, schedule), [1, 0]);
    }
}

#[test]
fn wrong_names_arguments_and_sizes_are_refused() {
    let mut out = vec![0; 32];
    let run = |kernel, threads, arguments: &[Argument]| run_on(kernel, 1, threads, Schedule::Forward, arguments);
    assert!(run("no_such_kernel", 32, &[]).unwrap_err().contains("no kernel is called no_such_kernel"));
    assert!(run("deadlock", 32, &[]).unwrap_err().contains("sizes: 8; given were:"));
    assert!(run("deadlock", 32, &[Argument::value(1u32)]).unwrap_err().contains("given were: 4"));
    let mut argument = || [Argument::output(&mut out)];
    assert!(run("deadlock", 1025, &argument()).unwrap_err().contains("1024"));
    assert!(run("deadlock", 0, &argument()).unwrap_err().contains("without threads"));
}
