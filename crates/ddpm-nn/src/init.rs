//! How a network starts: as the paper's code does (hojonathanho/diffusion).
//!
//! Weights are uniform with variance `1/fan_avg`; those of a residual block's second convolution, of an attention's
//! output and of the last convolution have `1e-10/fan_avg`; biases are 0, γ 1, β 0; embeddings of classes, which the
//! paper has not, are standard normal (PyTorch's choice).

use ddpm_tensor::Shape;
use ddpm_tensor::random::{Address, Purpose};
use rand_distr::{Distribution, StandardNormal, Uniform};

use crate::layout::{Init, Layout};

/// The paper's initial parameters, flat, in the layout's order, gaps zero.
///
/// Parameter i takes the numbers of sample i of [`Purpose::Init`], in the stored order: they depend on the seed and the
/// layout alone, not on the device, and a parameter's do not depend on the sizes of those before it.
pub fn paper(layout: &Layout, seed: u64) -> Vec<f32> {
    let mut flat = vec![0.0; layout.len()];
    for (i, p) in layout.parameters().iter().enumerate() {
        let out = &mut flat[p.range.clone()];
        let mut rng = Address::new(seed, Purpose::Init).at_sample(i as u64).rng();
        match p.init {
            Init::Constant(value) => out.fill(value),
            Init::NormalOf(deviation) => {
                let normal = StandardNormal.map(|z: f32| deviation * z);
                out.fill_with(|| normal.sample(&mut rng));
            }
            Init::Normal => out.fill_with(|| StandardNormal.sample(&mut rng)),
            Init::FanAvg { scale } => {
                let limit = (3.0 * scale / fan_avg(p.shape)).sqrt() as f32;
                match Uniform::new(-limit, limit) {
                    Ok(uniform) => out.fill_with(|| uniform.sample(&mut rng)),
                    Err(_) => out.fill(0.0), // a scale of 0
                }
            }
        }
    }
    flat
}

/// `(fan_in + fan_out)/2` of weights `[…, C_in, C_out]`: the sizes before are the receptive field's.
fn fan_avg(shape: Shape) -> f64 {
    match shape.dims() {
        [field @ .., c_in, c_out] => field.iter().product::<usize>() as f64 * (c_in + c_out) as f64 / 2.0,
        [c] => *c as f64,
        [] => 1.0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::layout::Role;

    #[test]
    fn variances_are_the_papers() {
        let mut layout = Layout::default();
        layout.at("conv").add("weight", [3, 3, 40, 24], Role::ConvWeight, Init::PAPER);
        layout.at("last").add("weight", [64, 64], Role::DenseWeight, Init::PAPER_ZERO);
        layout.at("norm").add("weight", [7], Role::Gamma, Init::Constant(1.0));
        let table = layout.at("classes").add("weight", [100, 50], Role::Table, Init::Normal);
        let flat = paper(&layout, 7);
        let variance = |i: usize| {
            let values = &flat[layout.parameters()[i].range.clone()];
            values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len() as f64
        };
        for (i, expected) in [(0, 1.0 / (9.0 * 32.0)), (1, 1e-10 / 64.0), (2, 1.0), (3, 1.0)] {
            assert!((variance(i) / expected - 1.0).abs() < 0.05, "{i}: {} and {expected}", variance(i));
        }
        assert!(flat[..9 * 40 * 24].iter().all(|v| v.abs() <= (3.0f32 / (9.0 * 32.0)).sqrt()));
        assert_eq!(flat[layout.parameters()[2].range.end], 0.0, "gaps are zero");
        // The bits are a promise: stored seeds must give stored networks.
        assert_eq!(paper(&layout, 7), flat);
        assert_ne!(paper(&layout, 8)[..10], flat[..10]);

        // A parameter's numbers do not depend on the sizes of the others.
        let mut other = Layout::default();
        other.at("conv").add("weight", [1, 1, 2, 2], Role::ConvWeight, Init::PAPER);
        other.at("last").add("weight", [64, 64], Role::DenseWeight, Init::PAPER_ZERO);
        let again = paper(&other, 7);
        assert_eq!(again[other.parameters()[1].range.clone()], flat[layout.parameters()[1].range.clone()]);
        assert_eq!(layout.parameter(table).range.len(), 5000);
    }
}
