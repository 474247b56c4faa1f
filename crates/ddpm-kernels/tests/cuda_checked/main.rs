//! The CUDA kernels, run on the CPU by a build that sees each load and store: races, shared memory that nobody wrote,
//! wasted sectors and conflicts of banks. See `../cuda_on_cpu/host/checker.h`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../cuda_on_cpu/host.rs"]
#[allow(dead_code)] // not all of what other tests need
mod host;
#[path = "../cuda_on_cpu/stand_in.rs"]
mod stand_in;

mod barriers;
mod checker;
mod grid;
mod planted;
mod races;
mod requests;

use stand_in::checked_folder as driver_folder;
