//! A step of the reverse process on the CPU.

use super::StepCoefficients;
use ddpm_tensor::cpu::disjoint::DisjointMut;
use ddpm_tensor::random::Address;
use ddpm_tensor::{Cpu, Element, Isa, Tensor, View, simd};

use crate::error::expect;
use crate::{KernelError, noise};

/// Elements done at a time, so that x̂_0 and z live on the stack. A multiple of four: no Philox block is made twice.
const CHUNK: usize = 1024;

/// Takes one image a step back, in this order of operations (the CUDA twin's as well):
///
/// ```text
/// x̂_0 = clip(fma(predict_output, output, predict_x · x))
/// x'  = fma(from_x_0, x̂_0, fma(from_output, output, from_x · x))
/// x'  = fma(sigma, z, x')                                          if sigma ≠ 0
/// ```
///
/// `x`, `output` (the network's), `next` (x') and `x_0` (x̂_0, if asked for) are one image each, flattened HWC;
/// element e of z is the standard normal of element e at `address`. A NaN stays one: clipping does not hide it.
///
/// # Panics
/// If the slices differ in length: the caller has checked shapes already.
pub fn posterior_image(
    x: &[f32],
    output: &[f32],
    c: &StepCoefficients,
    address: Address,
    next: &mut [f32],
    mut x_0: Option<&mut [f32]>,
) {
    let x_0_len = x_0.as_ref().map_or(x.len(), |x_0| x_0.len());
    assert!(
        x.len() == output.len() && x.len() == next.len() && x.len() == x_0_len,
        "posterior_image: x has {} elements, output {}, next {}, x_0 {x_0_len}",
        x.len(),
        output.len(),
        next.len()
    );
    let isa = Isa::detect();
    let (mut predicted, mut z) = ([0.0; CHUNK], [0.0; CHUNK]);
    for (i, ((x, output), next)) in x.chunks(CHUNK).zip(output.chunks(CHUNK)).zip(next.chunks_mut(CHUNK)).enumerate() {
        let first = i * CHUNK;
        let predicted = &mut predicted[..x.len()];
        predict(isa, x, output, c, predicted);
        mix(isa, x, output, c, predicted, next);
        if c.sigma != 0.0 {
            let z = &mut z[..x.len()];
            address.fill_normal(first, z);
            add_noise(isa, c.sigma, z, next);
        }
        if let Some(x_0) = &mut x_0 {
            x_0[first..first + x.len()].copy_from_slice(predicted);
        }
    }
}

simd! {
    fn predict[](isa, x: &[f32], output: &[f32], c: &StepCoefficients, x_0: &mut [f32]) {
        for ((x_0, &x), &output) in x_0.iter_mut().zip(x).zip(output) {
            let value = c.predict_output.mul_add(output, c.predict_x * x);
            // Two comparisons that are false for a NaN; `clamp` would panic on a NaN bound, `min` and `max` lose one.
            let value = if value < -c.clip { -c.clip } else { value };
            *x_0 = if value > c.clip { c.clip } else { value };
        }
    }
}

simd! {
    fn mix[](isa, x: &[f32], output: &[f32], c: &StepCoefficients, x_0: &[f32], next: &mut [f32]) {
        for (((next, &x), &output), &x_0) in next.iter_mut().zip(x).zip(output).zip(x_0) {
            *next = c.from_x_0.mul_add(x_0, c.from_output.mul_add(output, c.from_x * x));
        }
    }
}

simd! {
    fn add_noise[](isa, sigma: f32, z: &[f32], next: &mut [f32]) {
        for (next, &z) in next.iter_mut().zip(z) {
            *next = sigma.mul_add(z, *next);
        }
    }
}

/// Rough time for one element, for the choice of threads.
const NS_PER_ELEMENT: usize = 2;

/// Takes a batch a step back; see [`Backend::reverse_step`](crate::Backend::reverse_step).
#[allow(clippy::type_complexity)] // two tensors
pub(crate) fn reverse_step<T: Element>(
    cpu: &Cpu<T>,
    x: View<'_, Cpu<T>>,
    output: View<'_, Cpu<T>>,
    c: &StepCoefficients,
    address: Address,
    x_0: bool,
) -> Result<(Tensor<Cpu<T>>, Option<Tensor<Cpu<T>>>), KernelError> {
    expect("reverse_step", "the network's output", x.shape(), output.shape())?;
    let n = x.shape().dims().first().copied().unwrap_or(1);
    let len = x.shape().len() / n.max(1);
    let (mut next, mut predicted) = (Tensor::alloc(cpu, x.shape())?, Tensor::alloc(cpu, x.shape())?);
    let (next_out, x_0_out) = (DisjointMut::new(next.as_mut_slice()), DisjointMut::new(predicted.as_mut_slice()));
    cpu.parallel(n, n * len * NS_PER_ELEMENT, |image| {
        let range = image * len..(image + 1) * len;
        // SAFETY: tasks have different images.
        let (next, x_0) = unsafe { (next_out.part(range.clone()), x_0_out.part(range.clone())) };
        let (x, output) = (&x.as_slice()[range.clone()], &output.as_slice()[range]);
        let address = address.at_sample(address.sample + image as u64);
        if let (Some(x), Some(output), Some(next)) = (T::as_f32(x), T::as_f32(output), T::as_f32_mut(next))
            && let Some(x_0) = T::as_f32_mut(x_0)
        {
            posterior_image(x, output, c, address, next, Some(x_0));
            return;
        }
        let clip = T::of_f32(c.clip);
        // z first, in the place of the result
        noise::cpu::fill_normal(address, next);
        for (((next, x_0), &x), &output) in next.iter_mut().zip(x_0).zip(x).zip(output) {
            let value = T::of_f32(c.predict_output).fma(output, T::of_f32(c.predict_x) * x);
            *x_0 = if value > clip {
                clip
            } else if value < -clip {
                -clip
            } else {
                value
            };
            let mixed = T::of_f32(c.from_output).fma(output, T::of_f32(c.from_x) * x);
            let mean = T::of_f32(c.from_x_0).fma(*x_0, mixed);
            *next = if c.sigma == 0.0 { mean } else { T::of_f32(c.sigma).fma(*next, mean) };
        }
    });
    Ok((next, x_0.then_some(predicted)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::{close, cpu, handles, same_bits, tensor};
    use ddpm_tensor::random::Purpose;

    const C: StepCoefficients = StepCoefficients {
        predict_x: 1.25,
        predict_output: -0.75,
        clip: 1.0,
        from_x_0: 0.4,
        from_x: 0.55,
        from_output: -0.1,
        sigma: 0.3,
    };

    fn image(len: usize, phase: f32) -> Vec<f32> {
        (0..len).map(|i| 2.0 * (i as f32 * 0.37 + phase).sin()).collect()
    }

    #[test]
    fn follows_the_formula_with_and_without_noise() {
        let address = Address::new(3, Purpose::Sampler).at_step(5).at_sample(9);
        for len in [0, 1, 3, 1023, 1024, 1025, 5000] {
            let (x, output) = (image(len, 0.0), image(len, 1.0));
            let mut z = vec![0.0; len];
            address.fill_normal(0, &mut z);
            for sigma in [0.0, C.sigma] {
                for clip in [1.0, f32::INFINITY] {
                    let c = StepCoefficients { clip, sigma, ..C };
                    let (mut next, mut x_0) = (vec![f32::NAN; len], vec![f32::NAN; len]);
                    posterior_image(&x, &output, &c, address, &mut next, Some(&mut x_0));
                    let mut without = vec![f32::NAN; len];
                    posterior_image(&x, &output, &c, address, &mut without, None);
                    assert_eq!(next, without);
                    for e in 0..len {
                        let [x, output, z] = [x[e], output[e], z[e]].map(f64::from);
                        let expected_x_0 = (1.25 * x - 0.75 * output).max(-f64::from(clip)).min(f64::from(clip));
                        let expected = f64::from(c.from_x_0) * expected_x_0
                            + f64::from(c.from_x) * x
                            + f64::from(c.from_output) * output
                            + f64::from(sigma) * z;
                        for (name, got, expected) in [("x_0", x_0[e], expected_x_0), ("next", next[e], expected)] {
                            let error = (f64::from(got) - expected).abs();
                            assert!(error <= 1e-6, "{name}[{e}] of {len}: {got} for {expected}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn clipping_leaves_a_nan_and_bounds_infinities() {
        let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.5];
        let (mut next, mut x_0) = ([0.0; 4], [0.0; 4]);
        let address = Address::new(0, Purpose::Test);
        posterior_image(&x, &[0.0; 4], &C, address, &mut next, Some(&mut x_0));
        assert!(x_0[0].is_nan() && next[0].is_nan());
        assert_eq!(x_0[1..], [1.0, -1.0, 0.625]);
    }

    fn address() -> Address {
        Address::new(7, Purpose::Sampler).at_step(3).at_sample(11)
    }

    #[test]
    fn images_of_a_batch_have_their_own_noise_whatever_the_batch_and_the_threads() {
        for [h, w, channels] in [[1, 1, 1], [7, 17, 3], [33, 33, 1]] {
            let mut reference = None;
            for cpu in handles::<f32>() {
                let shape = [3, h, w, channels];
                let (x, output) = (tensor(&cpu, 1, shape), tensor(&cpu, 2, shape));
                let (next, x_0) = reverse_step(&cpu, x.view(), output.view(), &C, address(), true).unwrap();
                let (without, none) = reverse_step(&cpu, x.view(), output.view(), &C, address(), false).unwrap();
                assert!(none.is_none());
                same_bits("next, x_0 not asked for", without.as_slice(), next.as_slice());
                let len = h * w * channels;
                for i in 0..3 {
                    let own = i * len..(i + 1) * len;
                    let (mut alone, mut alone_x_0) = (vec![0.0; len], vec![0.0; len]);
                    let (x, output) = (&x.as_slice()[own.clone()], &output.as_slice()[own.clone()]);
                    let at = address().at_sample(11 + i as u64);
                    posterior_image(x, output, &C, at, &mut alone, Some(&mut alone_x_0));
                    same_bits("next of one image", &next.as_slice()[own.clone()], &alone);
                    same_bits("x_0 of one image", &x_0.as_ref().unwrap().as_slice()[own], &alone_x_0);
                }
                let reference: &Vec<f32> = reference.get_or_insert_with(|| next.as_slice().to_vec());
                same_bits(&format!("{cpu:?}"), next.as_slice(), reference);
            }
        }
    }

    #[test]
    fn f64_follows_the_formula_with_more_digits() {
        let cpu = cpu::<f64>();
        let shape = [2, 40, 11, 3];
        let (x, output) = (tensor(&cpu, 1, shape), tensor(&cpu, 2, shape));
        let z = noise::cpu::normals(&cpu, shape.into(), address()).unwrap();
        for c in [C, StepCoefficients { sigma: 0.0, clip: f32::INFINITY, ..C }] {
            let (next, x_0) = reverse_step(&cpu, x.view(), output.view(), &c, address(), true).unwrap();
            let [predict_x, predict_output, clip] = [c.predict_x, c.predict_output, c.clip].map(f64::from);
            let [from_x_0, from_x, from_output, sigma] = [c.from_x_0, c.from_x, c.from_output, c.sigma].map(f64::from);
            let pairs = x.as_slice().iter().zip(output.as_slice());
            let expected_x_0: Vec<f64> =
                pairs.map(|(x, o)| (predict_x * x + predict_output * o).max(-clip).min(clip)).collect();
            let expected: Vec<f64> = (0..expected_x_0.len())
                .map(|e| {
                    let [x, o, z] = [&x, &output, &z].map(|t| t.as_slice()[e]);
                    from_x_0 * expected_x_0[e] + from_x * x + from_output * o + sigma * z
                })
                .collect();
            close("x_0", x_0.unwrap().as_slice(), &expected_x_0, 1e-15, 1e-15);
            close("next", next.as_slice(), &expected, 1e-15, 1e-15);
        }
    }

    #[test]
    fn an_output_of_another_shape_is_refused() {
        let cpu = cpu::<f32>();
        let (x, output) = (tensor(&cpu, 1, [2, 3]), tensor(&cpu, 2, [2, 4]));
        let message = reverse_step(&cpu, x.view(), output.view(), &C, address(), true).unwrap_err().to_string();
        assert_eq!(message, "reverse_step: the network's output should be [2, 3], but is [2, 4]");
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let (x, output, z) = (image(1003, 0.0), image(1003, 1.0), image(1003, 2.0));
        let run = |isa| {
            let (mut x_0, mut next) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            predict(isa, &x, &output, &C, &mut x_0);
            mix(isa, &x, &output, &C, &x_0, &mut next);
            add_noise(isa, C.sigma, &z, &mut next);
            (x_0, next)
        };
        for isa in Isa::all() {
            assert_eq!(run(isa), run(Isa::PORTABLE), "{isa}");
        }
    }
}
