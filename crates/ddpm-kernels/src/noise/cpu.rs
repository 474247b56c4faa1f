//! Noising on the CPU.

use ddpm_tensor::random::Address;
use ddpm_tensor::{Isa, simd};

/// Elements made and used at a time, so that ε is still in the first cache when `x_t` reads it. A multiple of
/// four: no Philox block is made twice.
const CHUNK: usize = 1024;

/// Noises one image: `x_t[e] = fma(√(1−ᾱ), ε[e], √ᾱ · x_0[e])` (Ho et al. 2020, eq. 4).
///
/// `x_0`, `x_t` and `eps` are one image each, flattened HWC; element e of ε is the standard normal of element e at
/// `address`. ε is kept in `eps`, since the loss needs it. The bits are the same on every CPU and on CUDA.
///
/// # Panics
/// If the three slices differ in length: the caller has checked shapes already.
pub fn noise_image(
    x_0: &[f32],
    sqrt_alpha_bar: f32,
    sqrt_one_minus_alpha_bar: f32,
    address: Address,
    x_t: &mut [f32],
    eps: &mut [f32],
) {
    assert!(
        x_0.len() == x_t.len() && x_0.len() == eps.len(),
        "noise_image: x_0 has {} elements, x_t {}, eps {}",
        x_0.len(),
        x_t.len(),
        eps.len()
    );
    let isa = Isa::detect();
    let chunks = x_0.chunks(CHUNK).zip(x_t.chunks_mut(CHUNK)).zip(eps.chunks_mut(CHUNK));
    for (i, ((x_0, x_t), eps)) in chunks.enumerate() {
        address.fill_normal(i * CHUNK, eps);
        mix(isa, x_0, sqrt_alpha_bar, sqrt_one_minus_alpha_bar, eps, x_t);
    }
}

simd! {
    fn mix[](isa, x_0: &[f32], sqrt_alpha_bar: f32, sqrt_one_minus_alpha_bar: f32, eps: &[f32], x_t: &mut [f32]) {
        for ((x_t, &x_0), &eps) in x_t.iter_mut().zip(x_0).zip(eps) {
            *x_t = sqrt_one_minus_alpha_bar.mul_add(eps, sqrt_alpha_bar * x_0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::noise_image;
    use ddpm_tensor::random::{Address, Purpose};

    #[test]
    fn follows_equation_4_and_keeps_its_noise() {
        let address = Address::new(3, Purpose::Noise).at_step(5).at_sample(9);
        let alpha_bar = 0.3f64;
        for len in [0, 1, 3, 4, 1023, 1024, 1025, 5000] {
            let x_0: Vec<f32> = (0..len).map(|i| (i as f32 * 0.37).sin()).collect();
            let (mut x_t, mut eps) = (vec![f32::NAN; len], vec![f32::NAN; len]);
            let coefficients = (alpha_bar.sqrt() as f32, (1.0 - alpha_bar).sqrt() as f32);
            noise_image(&x_0, coefficients.0, coefficients.1, address, &mut x_t, &mut eps);
            let mut expected_eps = vec![0.0; len];
            address.fill_normal(0, &mut expected_eps);
            assert_eq!(eps, expected_eps);
            for e in 0..len {
                let expected = alpha_bar.sqrt() * f64::from(x_0[e]) + (1.0 - alpha_bar).sqrt() * f64::from(eps[e]);
                let error = (f64::from(x_t[e]) - expected).abs();
                assert!(error <= 3e-7 + 2e-7 * expected.abs(), "element {e} of {len}: {} for {expected}", x_t[e]);
            }
        }
    }
}
