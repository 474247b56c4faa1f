//! The CUDA kernels of `kernels/`, compiled **unmodified** with the system's C++ compiler and run on the CPU under
//! several thread schedules, against the Rust bodies: bit for bit where the order of sums is one, else by the norm of the
//! difference. What is tested is the source that the PTX comes
//! from; that the two belong together is what `cargo xtask build-kernels --check` sees to.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod attention;
mod conv;
mod device;
mod elementwise;
mod harness;
mod host;
mod mma;
mod noise;
mod philox;
mod posterior;
mod stand_in;
mod streams;
mod support;
mod tensor;

use stand_in::folder as driver_folder;
