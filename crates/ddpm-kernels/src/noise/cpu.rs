//! Noising on the CPU.

use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::random::Address;
use ddpm_tensor::{Cpu, Element, Isa, Shape, Tensor, View, simd};

use crate::KernelError;

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

/// Rough time to make one normal number, for the choice of threads.
const NS_PER_ELEMENT: usize = 2;

/// Noises a batch; see [`Backend::noise`](crate::Backend::noise).
#[allow(clippy::type_complexity)] // two tensors
pub(crate) fn noise<T: Element>(
    cpu: &Cpu<T>,
    x_0: View<'_, Cpu<T>>,
    coefficients: &[(f32, f32)],
    address: Address,
) -> Result<(Tensor<Cpu<T>>, Tensor<Cpu<T>>), KernelError> {
    let n = x_0.shape().dims().first().copied().unwrap_or(1);
    if coefficients.len() != n {
        let what = format!("{} coefficients came for {n} images", coefficients.len());
        return Err(KernelError::Setting { operation: "noise", what });
    }
    let (mut x_t, mut eps) = (Tensor::alloc(cpu, x_0.shape())?, Tensor::alloc(cpu, x_0.shape())?);
    let len = x_0.shape().len() / n.max(1);
    let (x_t_out, eps_out) = (DisjointMut::new(x_t.as_mut_slice()), DisjointMut::new(eps.as_mut_slice()));
    cpu.parallel(n, n * len * NS_PER_ELEMENT, |image| {
        let range = image * len..(image + 1) * len;
        // SAFETY: tasks have different images.
        let (x_t, eps) = unsafe { (x_t_out.part(range.clone()), eps_out.part(range.clone())) };
        let x_0 = &x_0.as_slice()[range];
        let ((a, b), address) = (coefficients[image], address.at_sample(address.sample + image as u64));
        if let (Some(x_0), Some(x_t), Some(eps)) = (T::as_f32(x_0), T::as_f32_mut(x_t), T::as_f32_mut(eps)) {
            noise_image(x_0, a, b, address, x_t, eps);
        } else {
            fill_normal(address, eps);
            for ((x_t, &x_0), &eps) in x_t.iter_mut().zip(x_0).zip(eps.iter()) {
                *x_t = T::of_f32(b).fma(eps, T::of_f32(a) * x_0);
            }
        }
    });
    Ok((x_t, eps))
}

/// Standard normals of a batch; see [`Backend::normals`](crate::Backend::normals).
pub(crate) fn normals<T: Element>(cpu: &Cpu<T>, shape: Shape, address: Address) -> Result<Tensor<Cpu<T>>, KernelError> {
    let n = shape.dims().first().copied().unwrap_or(1);
    let mut y = Tensor::alloc(cpu, shape)?;
    let len = shape.len() / n.max(1);
    let out = DisjointMut::new(y.as_mut_slice());
    cpu.parallel(n, n * len * NS_PER_ELEMENT, |image| {
        // SAFETY: tasks have different images.
        let out = unsafe { out.part(image * len..(image + 1) * len) };
        fill_normal(address.at_sample(address.sample + image as u64), out);
    });
    Ok(y)
}

/// The normals of an address in any number type: those of `f32`, exactly.
pub(crate) fn fill_normal<T: Element>(address: Address, out: &mut [T]) {
    if let Some(out) = T::as_f32_mut(out) {
        return address.fill_normal(0, out);
    }
    let mut z = [0.0; CHUNK];
    for (i, out) in out.chunks_mut(CHUNK).enumerate() {
        address.fill_normal(i * CHUNK, &mut z[..out.len()]);
        out.iter_mut().zip(z).for_each(|(out, z)| *out = T::of_f32(z));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::{close, cpu, handles, same_bits, tensor};
    use ddpm_tensor::random::Purpose;

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

    const COEFFICIENTS: [(f32, f32); 3] = [(0.9, 0.3), (0.5, 0.8), (0.01, 0.99)];

    fn address() -> Address {
        Address::new(7, Purpose::Noise).at_step(3).at_sample(11)
    }

    #[test]
    fn images_of_a_batch_have_their_own_coefficients_and_noise_whatever_the_batch_and_the_threads() {
        for [h, w, c] in [[1, 1, 1], [7, 17, 3], [33, 33, 1]] {
            let mut reference = None;
            for cpu in handles::<f32>() {
                let x_0 = tensor(&cpu, 1, [3, h, w, c]);
                let (x_t, eps) = noise(&cpu, x_0.view(), &COEFFICIENTS, address()).unwrap();
                let drawn = normals(&cpu, x_0.shape(), address()).unwrap();
                same_bits("the noise that was used", eps.as_slice(), drawn.as_slice());
                let len = h * w * c;
                for (i, (a, b)) in COEFFICIENTS.into_iter().enumerate() {
                    let own = i * len..(i + 1) * len;
                    let mut alone = [vec![0.0; len], vec![0.0; len]];
                    let [alone_x, alone_eps] = &mut alone;
                    let at = address().at_sample(11 + i as u64);
                    noise_image(&x_0.as_slice()[own.clone()], a, b, at, alone_x, alone_eps);
                    same_bits("x_t of one image", &x_t.as_slice()[own.clone()], &alone[0]);
                    same_bits("noise of one image", &eps.as_slice()[own], &alone[1]);
                }
                let reference: &Vec<f32> = reference.get_or_insert_with(|| x_t.as_slice().to_vec());
                same_bits(&format!("{cpu:?}"), x_t.as_slice(), reference);
            }
        }
    }

    #[test]
    fn f64_takes_the_same_normals_and_more_digits() {
        let cpu = cpu::<f64>();
        let x_0 = tensor(&cpu, 1, [3, 40, 11, 3]);
        let (x_t, eps) = noise(&cpu, x_0.view(), &COEFFICIENTS, address()).unwrap();
        let drawn = normals(&crate::testing::cpu::<f32>(), x_0.shape(), address()).unwrap();
        let drawn: Vec<f64> = drawn.as_slice().iter().map(|&z| z as f64).collect();
        same_bits("noise", eps.as_slice(), &drawn);
        let each = 40 * 11 * 3;
        let expected: Vec<f64> = (0..3 * each)
            .map(|e| {
                let (a, b) = COEFFICIENTS[e / each];
                a as f64 * x_0.as_slice()[e] + b as f64 * drawn[e]
            })
            .collect();
        close("x_t", x_t.as_slice(), &expected, 1e-15, 1e-15);
    }

    #[test]
    fn another_number_of_coefficients_is_refused() {
        let cpu = cpu::<f32>();
        let x_0 = tensor(&cpu, 1, [2, 3]);
        let message = noise(&cpu, x_0.view(), &COEFFICIENTS, address()).unwrap_err().to_string();
        assert_eq!(message, "noise: 3 coefficients came for 2 images");
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let x_0: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut eps = vec![0.0; x_0.len()];
        Address::new(3, Purpose::Noise).fill_normal(0, &mut eps);
        let run = |isa| {
            let mut x_t = vec![0.0; x_0.len()];
            mix(isa, &x_0, 0.3, 0.7, &eps, &mut x_t);
            x_t
        };
        for isa in Isa::all() {
            assert_eq!(run(isa), run(Isa::PORTABLE), "{isa}");
        }
    }
}
