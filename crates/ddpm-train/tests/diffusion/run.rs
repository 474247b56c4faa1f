//! Plans on a device: the images of a seed, and their distribution.

use std::cell::Cell;

use ddpm_kernels::{Backend, KernelError};
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cpu, CpuOptions, Tensor};
use ddpm_train::channels::halves;
use ddpm_train::diffusion::{Level, Prediction, Schedule, ScheduleSettings, Variance};
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
            let of = |x| best(Prediction::Eps, Level::of(&schedule, t as usize), x);
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

/// A plan's end with a network that says zeros, and `said` of the variance.
fn with_variance(options: &SamplerOptions, said: Option<f32>) -> Result<Vec<f32>, KernelError> {
    let cpu: Cpu<f32> = Cpu::new(CpuOptions::default()).unwrap();
    let schedule = ScheduleSettings::default().build().unwrap();
    let plan = (samplers::find("ddpm").unwrap().plan)(&schedule, options).unwrap();
    let images = Images { seed: 3, first: 5 };
    let x = latents(&cpu, [2, 2, 3, 1].into(), images)?;
    let x = plan.run(
        &cpu,
        x,
        images,
        false,
        |x, _| {
            let [n, h, w, _] = x.shape().nhwc();
            let values: Vec<f32> = (0..n * h * w).flat_map(|_| std::iter::once(0.0).chain(said)).collect();
            Tensor::from_slice(&cpu, [n, h, w, 1 + usize::from(said.is_some())], &values).map_err(KernelError::from)
        },
        |_| Ok(()),
    )?;
    x.to_vec(&cpu).map_err(KernelError::from)
}

#[test]
fn a_learned_variance_reaches_from_the_small_to_the_large_one() {
    for steps in [7, 100] {
        let of = |variance| SamplerOptions { variance, steps: Some(steps), ..SamplerOptions::default() };
        for (said, fixed) in [(1.0, Variance::FixedLarge), (-1.0, Variance::FixedSmall)] {
            let ours = with_variance(&of(Variance::LearnedRange), Some(said)).unwrap();
            let theirs = with_variance(&of(fixed), None).unwrap();
            for (a, b) in ours.iter().zip(&theirs) {
                assert!((a - b).abs() <= 1e-5, "{said} of {steps}: {a}, {b}");
            }
            let between = with_variance(&of(Variance::LearnedRange), Some(0.3 * said)).unwrap();
            assert!(between.iter().zip(&theirs).any(|(a, b)| (a - b).abs() > 1e-3));
        }
        assert!(with_variance(&of(Variance::LearnedRange), None).unwrap_err().to_string().contains("variance"));
        // ln σ² = ln β_t is not one number for all steps, but e^0 is larger than any of them
        let wide = with_variance(&of(Variance::Learned), Some(0.0)).unwrap();
        assert!(wide.iter().all(|x| x.is_finite()));
    }
}

#[test]
fn self_conditioning_shows_what_was_seen_before() {
    let cpu: Cpu<f32> = Cpu::new(CpuOptions::default()).unwrap();
    let schedule = ScheduleSettings::default().build().unwrap();
    for sampler in SAMPLERS {
        let options = SamplerOptions { self_conditioning: true, steps: Some(6), ..SamplerOptions::default() };
        let plan = (sampler.plan)(&schedule, &options).unwrap();
        let images = Images { seed: 3, first: 0 };
        let x = latents(&cpu, [1, 2, 2, 3].into(), images).unwrap();
        let shown = std::cell::RefCell::new(Vec::new());
        let seen = std::cell::RefCell::new(vec![vec![0.0_f32; 12]]);
        plan.run(
            &cpu,
            x,
            images,
            true,
            |x, _| {
                let [now, before] = halves(&cpu, x)?;
                shown.borrow_mut().push(before.to_vec(&cpu)?);
                cpu.affine(now.view(), 0.5, 0.0)
            },
            |moment| {
                seen.borrow_mut().push(moment.x_0.unwrap().to_vec(&cpu)?);
                Ok::<_, KernelError>(())
            },
        )
        .unwrap();
        let (shown, seen) = (shown.into_inner(), seen.into_inner());
        assert_eq!(shown.len(), plan.steps.len());
        assert_eq!(shown, seen[..shown.len()], "{}", sampler.name);
        assert!(shown[1].iter().any(|x| *x != 0.0));
    }
}
