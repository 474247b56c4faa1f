//! Plans on a device: the images of a seed, and their distribution.

use std::cell::Cell;

use ddpm_kernels::{Backend, KernelError};
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cpu, CpuOptions, Tensor};
use ddpm_train::diffusion::{Prediction, Schedule, ScheduleSettings, Variance};
use ddpm_train::samplers::{self, Images, Plan, SAMPLERS, SamplerOptions, latents};

use super::assert_close;
use super::gaussian::{best, sampled};

fn cpu() -> Cpu<f32> {
    Cpu::new(CpuOptions::default()).unwrap()
}

fn schedule() -> Schedule {
    ScheduleSettings::default().build().unwrap()
}

fn noisy_plan(name: &str) -> Plan {
    let options = SamplerOptions { steps: Some(6), eta: 0.7, churn: 2.0, ..SamplerOptions::default() };
    (samplers::find(name).unwrap().plan)(&schedule(), &options).unwrap()
}

/// `count` images of 3x5 pixels and 2 channels by a network that is none.
fn images(plan: &Plan, images: Images, count: usize) -> Vec<f32> {
    let cpu = cpu();
    let x = latents(&cpu, [count, 3, 5, 2].into(), images).unwrap();
    let model = |x: &Tensor<Cpu<f32>>, t: f64| cpu.affine(x.view(), 0.9, t * 1e-4);
    plan.run(&cpu, x, images, false, model, |_| Ok::<(), KernelError>(())).unwrap().as_slice().to_vec()
}

#[test]
fn an_image_of_a_seed_is_the_same_in_every_batch() {
    for name in SAMPLERS.iter().map(|sampler| sampler.name) {
        let plan = noisy_plan(name);
        let five = images(&plan, Images { seed: 7, first: 0 }, 5);
        for (n, want) in five.chunks(30).enumerate() {
            assert_eq!(images(&plan, Images { seed: 7, first: n as u64 }, 1), want, "{name}, image {n}");
        }
        assert_eq!(images(&plan, Images { seed: 7, first: 2 }, 3), five[60..], "{name}");
        assert_ne!(images(&plan, Images { seed: 8, first: 0 }, 1), five[..30], "{name}");
        assert_ne!(five[..30], five[30..60], "{name}");
    }
}

#[test]
fn a_step_on_the_device_is_the_step_in_f64() {
    let cpu = cpu();
    let here = Images { seed: 3, first: 4 };
    for name in ["ddpm", "ddim"] {
        for prediction in [Prediction::Eps, Prediction::X0, Prediction::V] {
            let options = SamplerOptions { prediction, steps: Some(4), eta: 0.5, ..SamplerOptions::default() };
            let plan = (samplers::find(name).unwrap().plan)(&schedule(), &options).unwrap();
            let x_t = latents(&cpu, [1, 3, 3, 1].into(), here).unwrap();
            let before = Cell::new(x_t.as_slice().to_vec());
            let seen = Cell::new(0);
            let model = |x: &Tensor<Cpu<f32>>, _| cpu.affine(x.view(), 0.5, 0.1);
            plan.run(&cpu, x_t, here, true, model, |moment| {
                let step = &plan.steps[moment.step];
                assert_eq!((moment.of, moment.time_step), (4, step.time_step));
                let address = Address { seed: 3, purpose: Purpose::Sampler, step: moment.step as u64, sample: 4 };
                let mut z = [0.0; 9];
                address.fill_normal(0, &mut z);
                let (x, x_0) = (before.take(), moment.x_0.unwrap().as_slice());
                for e in 0..9 {
                    let output = f64::from(x[e]) * 0.5 + 0.1;
                    let want = step.apply(f64::from(x[e]), output, f64::from(z[e]));
                    // ε at late time steps is multiplied by 1/√ᾱ = 157 before it is clipped
                    assert_close(&format!("{name} {prediction}"), f64::from(moment.x.as_slice()[e]), want, 1e-5, 1e-5);
                    assert!(x_0[e].abs() <= 1.0);
                }
                before.set(moment.x.as_slice().to_vec());
                seen.set(seen.get() + 1);
                Ok::<(), KernelError>(())
            })
            .unwrap();
            assert_eq!(seen.get(), 4);
        }
    }
}

#[test]
fn drawn_images_have_the_mean_and_deviation_that_theory_gives() {
    let (cpu, schedule) = (cpu(), schedule());
    let here = Images { seed: 11, first: 0 };
    let count = 16 * 32 * 32;
    for (name, steps, variance) in
        [("ddpm", 1000, Variance::FixedLarge), ("ddpm", 60, Variance::FixedSmall), ("ddim", 60, Variance::FixedSmall)]
    {
        let options =
            SamplerOptions { steps: Some(steps), variance, eta: 0.8, clip: None, ..SamplerOptions::default() };
        let plan = (samplers::find(name).unwrap().plan)(&schedule, &options).unwrap();
        let x = latents(&cpu, [16, 32, 32, 1].into(), here).unwrap();
        let model = |x: &Tensor<Cpu<f32>>, t: f64| {
            let of = |x| best(Prediction::Eps, schedule.alpha_bar()[t as usize], x);
            cpu.affine(x.view(), of(1.0) - of(0.0), of(0.0))
        };
        let x = plan.run(&cpu, x, here, false, model, |_| Ok::<(), KernelError>(())).unwrap();
        let drawn: Vec<f64> = x.as_slice().iter().map(|&x| f64::from(x)).collect();
        let mean = drawn.iter().sum::<f64>() / count as f64;
        let deviation = (drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count as f64).sqrt();
        // 4 standard errors: deviation/√n of a mean, deviation/√(2n) of a deviation.
        let (want_mean, want_deviation) = sampled(name, &schedule, &options);
        let four = 4.0 * want_deviation / (count as f64).sqrt();
        assert_close(&format!("{name} mean"), mean, want_mean, 0.0, four);
        assert_close(&format!("{name} deviation"), deviation, want_deviation, 0.0, four / 2.0f64.sqrt());
    }
}

#[test]
fn an_error_ends_the_run() {
    #[derive(Debug)]
    struct Stopped(usize);
    impl From<KernelError> for Stopped {
        fn from(_: KernelError) -> Self {
            Self(usize::MAX)
        }
    }
    let (cpu, here) = (cpu(), Images { seed: 0, first: 0 });
    let x = latents(&cpu, [1, 2, 2, 1].into(), here).unwrap();
    let model = |x: &Tensor<Cpu<f32>>, _| Ok(cpu.affine(x.view(), 0.5, 0.0)?);
    let watch = |moment: &samplers::Moment<'_, _>| if moment.step == 2 { Err(Stopped(moment.step)) } else { Ok(()) };
    assert_eq!(noisy_plan("ddpm").run(&cpu, x, here, false, model, watch).unwrap_err().0, 2);
}
