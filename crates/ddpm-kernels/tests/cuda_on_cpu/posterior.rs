//! `kernels/posterior.cu` against [`posterior_image`].

use crate::host::{Argument, SCHEDULES, launch};
use crate::support::{BATCHES, Buffer, launches, values};
use ddpm_kernels::posterior::{StepCoefficients, posterior_image};
use ddpm_tensor::random::{Address, Purpose};

/// With noise and without, clipped and not.
const COEFFICIENTS: [StepCoefficients; 4] = {
    let clipped = StepCoefficients {
        predict_x: 1.2345,
        predict_output: -0.7243,
        clip: 1.0,
        from_x_0: 0.0391,
        from_x: 0.9412,
        from_output: -0.1177,
        sigma: 0.2034,
    };
    [
        clipped,
        StepCoefficients { clip: f32::INFINITY, ..clipped },
        StepCoefficients { sigma: 0.0, from_output: 0.0, ..clipped },
        StepCoefficients { clip: 0.25, sigma: 1e-20, from_x: 0.0, ..clipped },
    ]
};

/// The image's number and the step pass 2^32 within the batch.
const ADDRESS: Address = Address {
    seed: 0x0123_4567_89ab_cdef,
    purpose: Purpose::Sampler,
    step: (1 << 32) + 999,
    sample: u32::MAX as u64 - 1,
};

#[test]
fn posterior_agrees_to_the_bit() {
    for (case, (images, elements)) in BATCHES.into_iter().enumerate() {
        let x = values(images * elements, 2 * case as u32);
        let output = values(images * elements, 2 * case as u32 + 1);
        for (c, coefficients) in COEFFICIENTS.into_iter().enumerate() {
            let (mut next, mut x_0) = (x.clone(), x.clone());
            for i in 0..images {
                let image = i * elements..(i + 1) * elements;
                posterior_image(
                    &x[image.clone()],
                    &output[image.clone()],
                    &coefficients,
                    ADDRESS.at_sample(ADDRESS.sample + i as u64),
                    &mut next[image.clone()],
                    Some(&mut x_0[image]),
                );
            }
            for schedule in SCHEDULES {
                for (k, run) in launches(images, elements, schedule).into_iter().enumerate() {
                    // Every alignment; x_0 asked for and not; and, in the last launch, the next x in the place of x.
                    let wants_x_0 = (k + c) % 2 == 0;
                    let in_place = k == 2;
                    let mut input = Buffer::of(&x, k);
                    let network = Buffer::of(&output, 3 * k);
                    let mut next_cuda = Buffer::unwritten(x.len(), k);
                    let mut x_0_cuda = Buffer::unwritten(x.len(), 2 * k);
                    let target = Argument::output(if in_place { &mut input } else { &mut next_cuda }.as_mut());
                    let arguments = [
                        if in_place { Argument::value(target.as_u64()) } else { Argument::input(input.as_ref()) },
                        Argument::input(network.as_ref()),
                        target,
                        if wants_x_0 { Argument::output(x_0_cuda.as_mut()) } else { Argument::null() },
                        Argument::value(images as u64),
                        Argument::value(elements as u64),
                        Argument::value(coefficients),
                        Argument::value(ADDRESS.seed),
                        Argument::value(ADDRESS.step),
                        Argument::value(ADDRESS.sample),
                        Argument::value(ADDRESS.purpose as u32),
                    ];
                    // SAFETY: the arguments of `posterior_f32` in its order; all buffers hold images · elements floats.
                    unsafe { launch("posterior_f32", run, &arguments) }.unwrap();
                    let what = format!("posterior, {images} images of {elements}, {coefficients:?}, {run:?}");
                    if in_place { &input } else { &next_cuda }.assert_holds(&next, &format!("{what}, next"));
                    if wants_x_0 {
                        x_0_cuda.assert_holds(&x_0, &format!("{what}, x_0"));
                    }
                }
            }
        }
    }
}
