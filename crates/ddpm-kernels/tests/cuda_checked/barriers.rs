//! Every barrier of every kernel is needed: with any one of them left out, the checker finds a race.
//!
//! The barrier is waited at, but orders nothing: that is what is asked, and it needs no other build. `cargo xtask torture
//! barriers` takes them out of the source instead.

use crate::checker;
use crate::grid::{GRID, devices};
use crate::host::{Schedule, ask_for};
use std::fs;
use std::path::{Path, PathBuf};

/// What orders threads.
const BARRIERS: [&str; 2] = ["__syncthreads();", "__syncwarp("];

/// Barriers in the kernels' sources: `file:line`.
fn in_sources() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|f| f.join("kernels/manifest.json").is_file());
    let folder = std::env::var_os("DDPM_KERNELS").map_or_else(|| root.unwrap().join("kernels"), PathBuf::from);
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "cu" && e != "cuh") {
            continue;
        }
        for (i, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap();
            if BARRIERS.iter().any(|barrier| code.contains(barrier)) {
                all.push(format!("{}:{}", path.file_name().unwrap().to_string_lossy(), i + 1));
            }
        }
    }
    all.sort();
    all
}

#[test]
fn no_barrier_can_be_left_out() {
    ask_for(Schedule::Forward);
    let barriers = in_sources();
    assert!(barriers.len() > 10);
    let mut missed: Vec<&str> = barriers.iter().map(String::as_str).collect();
    let gpus = devices();
    for (gpu, case) in gpus.iter().flat_map(|gpu| GRID.iter().map(move |case| (gpu, case))) {
        case.run(gpu);
        let passed = checker::barriers();
        missed.retain(|barrier| {
            if !passed.iter().any(|p| p.split(' ').next() == Some(barrier)) {
                return true; // no kernel of this case has it
            }
            checker::ignore(barrier);
            case.run(gpu);
            checker::ignore("");
            checker::races().is_empty()
        });
    }
    assert!(missed.is_empty(), "nothing is found when these barriers are left out: {missed:?}");
}
