//! Every layer, every block and three whole networks against finite differences in f64, with random upstream gradients;
//! and backward passes that are wrong on purpose, which must be noticed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod blocks;
mod check;
mod layers;
mod networks;

use std::sync::Arc;

use check::{C, normals};
use ddpm_nn::layout::Role;
use ddpm_nn::{Layout, Parameters};

/// Random parameters, none zero: weights of a size that keeps signals alive, γ around 1.
fn parameters(cpu: &C, layout: &Arc<Layout>) -> Parameters<C> {
    let mut flat = vec![0.0; layout.len()];
    for (i, p) in layout.parameters().iter().enumerate() {
        let fan_in: usize = p.shape.dims().iter().rev().skip(1).product();
        let (scale, mean) = match p.role {
            Role::ConvWeight | Role::DenseWeight => (1.0 / (fan_in as f64).sqrt(), 0.0),
            Role::Gamma => (0.3, 1.0),
            Role::Bias | Role::Beta | Role::Table | Role::Fixed => (0.3, 0.0),
        };
        for (out, v) in flat[p.range.clone()].iter_mut().zip(normals(p.range.len(), i as u64)) {
            *out = mean + scale * v;
        }
    }
    let mut parameters = Parameters::zeros(cpu, layout).unwrap();
    parameters.upload(cpu, &flat).unwrap();
    parameters
}
