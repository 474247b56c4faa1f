//! The mathematics of diffusion: identities in closed form, values computed another way, and what diffusers does.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod diffusers;
mod gaussian;
mod multistep;
mod process;
mod run;
mod samplers;
mod scheduler_config;

/// Holds `got` against `want`: |difference| ≤ relative · |want| + absolute.
#[track_caller]
fn assert_close(what: &str, got: f64, want: f64, relative: f64, absolute: f64) {
    let error = (got - want).abs();
    assert!(error <= relative * want.abs() + absolute, "{what}: got {got:e}, want {want:e}, off by {error:e}");
}
