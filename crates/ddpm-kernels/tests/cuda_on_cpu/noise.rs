//! `kernels/noise.cu` against [`noise_image`].

use crate::host::{Argument, SCHEDULES, launch};
use crate::support::{BATCHES, Buffer, launches, values};
use ddpm_kernels::noise::noise_image;
use ddpm_tensor::random::{Address, Purpose};

/// Addresses whose every part is at work, the last with parts beyond 32 bits.
const ADDRESSES: [Address; 3] = [
    Address { seed: 0, purpose: Purpose::Noise, step: 0, sample: 0 },
    Address { seed: 42, purpose: Purpose::Heldout, step: 499, sample: 1000 },
    Address {
        seed: 0xfedc_ba98_7654_3210,
        purpose: Purpose::Test,
        step: (1 << 47) + (1 << 32) + 5,
        sample: (1 << 39) + u32::MAX as u64 - 1,
    },
];

#[test]
fn noise_agrees_to_the_bit() {
    for (case, (images, elements)) in BATCHES.into_iter().enumerate() {
        let address = ADDRESSES[case % ADDRESSES.len()];
        let x_0 = values(images * elements, case as u32);
        let alpha_bar: Vec<f32> = (0..images).map(|i| 1.0 - (i as f32 + 0.5) / images as f32).collect();
        let signal: Vec<f32> = alpha_bar.iter().map(|a| a.sqrt()).collect();
        let noise: Vec<f32> = alpha_bar.iter().map(|a| (1.0 - a).sqrt()).collect();
        let (mut x_t, mut eps) = (x_0.clone(), x_0.clone());
        for i in 0..images {
            let image = i * elements..(i + 1) * elements;
            noise_image(
                &x_0[image.clone()],
                signal[i],
                noise[i],
                address.at_sample(address.sample + i as u64),
                &mut x_t[image.clone()],
                &mut eps[image],
            );
        }
        for schedule in SCHEDULES {
            for (k, run) in launches(images, elements, schedule).into_iter().enumerate() {
                // Every alignment, alike and unlike; and, in the last launch, x_t in the place of x_0.
                let mut input = Buffer::of(&x_0, k);
                let mut x_t_cuda = Buffer::unwritten(x_t.len(), k);
                let mut eps_cuda = Buffer::unwritten(eps.len(), 2 * k);
                let in_place = k == 2;
                let target = if in_place { &mut input } else { &mut x_t_cuda };
                let target = Argument::output(target.as_mut());
                let source = if in_place { Argument::value(target.as_u64()) } else { Argument::input(input.as_ref()) };
                let arguments = [
                    source,
                    Argument::input(&signal),
                    Argument::input(&noise),
                    target,
                    Argument::output(eps_cuda.as_mut()),
                    Argument::value(images as u64),
                    Argument::value(elements as u64),
                    Argument::value(address.seed),
                    Argument::value(address.step),
                    Argument::value(address.sample),
                    Argument::value(address.purpose as u32),
                ];
                // SAFETY: the arguments of `noise_f32` in its order; all buffers hold images · elements floats and
                // the coefficients one for each image.
                unsafe { launch("noise_f32", run, &arguments) }.unwrap();
                let what = format!("noise, {images} images of {elements}, {run:?}");
                if in_place { &input } else { &x_t_cuda }.assert_holds(&x_t, &format!("{what}, x_t"));
                eps_cuda.assert_holds(&eps, &format!("{what}, eps"));
            }
        }
    }
}
