//! The CUDA kernels of `kernels/`, compiled **unmodified** with the system's C++ compiler and run on the CPU under
//! several thread schedules, against the Rust bodies: bit for bit. What is tested is the source that the PTX comes
//! from; that the two belong together is what `cargo xtask build-kernels --check` sees to.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;
mod host;
mod noise;
mod philox;
mod posterior;
mod support;
