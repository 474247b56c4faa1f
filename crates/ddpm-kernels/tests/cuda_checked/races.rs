//! Every kernel, over a grid of shapes: no race, no read of shared memory that its block never wrote.

use crate::checker;
use crate::grid::{GRID, devices};
use crate::host::{Schedule, ask_for};
use ddpm_kernels::ptx;
use std::collections::BTreeSet;

#[test]
fn no_kernel_races() {
    for gpu in devices() {
        for (i, case) in GRID.iter().enumerate() {
            // barriers promise the same whatever order is taken; kernels may branch on what they read
            ask_for(if i % 2 == 0 { Schedule::Forward } else { Schedule::Shuffled(i as u32) });
            case.run(&gpu);
            let found = checker::races();
            assert!(found.is_empty(), "{:?}, {case:?}:\n{}", gpu.precision(), found.join("\n"));
        }
    }
}

#[test]
fn the_grid_launches_every_kernel() {
    let gpus = devices();
    let run = || gpus.iter().for_each(|gpu| GRID.iter().for_each(|case| case.run(gpu)));
    let counts = checker::counts(run);
    let launched: BTreeSet<_> = counts.iter().map(|count| count.kernel.as_str()).collect();
    let all: BTreeSet<_> = ptx::ALL.iter().flat_map(|module| module.kernels).copied().collect();
    let missing: Vec<_> = all.difference(&launched).collect();
    assert!(missing.is_empty(), "no case of the grid launches {missing:?}");
}
