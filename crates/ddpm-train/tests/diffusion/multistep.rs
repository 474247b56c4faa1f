//! diffusers' schedulers that remember earlier calls, call by call: `tests/fixtures/samplers.json`, made by the script beside it.
//!
//! Every call starts from the reference's sample and history, and its result is held against the reference's next sample. The
//! worst distance seen is 1.1e-6, with their noise levels kept in f32.

use ddpm_kernels::KernelError;
use ddpm_tensor::random::Purpose;
use ddpm_tensor::{Cpu, CpuOptions, Tensor};
use ddpm_train::diffusion::scheduler_config::SchedulerConfig;
use ddpm_train::diffusion::{Level, Prediction, ScheduleSettings};
use ddpm_train::samplers::{self, Images, Run, SamplerOptions, invert};
use serde::Deserialize;

use super::assert_close;
use super::gaussian::best;

#[derive(Deserialize)]
struct Fixture {
    z: Vec<f64>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    config: String,
    steps: usize,
    start: f64,
    times: Vec<f64>,
    xs: Vec<Vec<f64>>,
    outputs: Vec<Vec<f64>>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../fixtures/samplers.json")).unwrap()
}

/// ‖a − b‖/‖b‖.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

#[test]
fn every_call_is_theirs() {
    let Fixture { z, cases } = fixture();
    assert!(cases.len() > 60, "{} cases", cases.len());
    let cpu: Cpu<f32> = Cpu::new(CpuOptions::default()).unwrap();
    let images = Images { seed: 5, first: 0 };
    for case in cases {
        assert!(case.times.len() >= 10, "{}", case.config);
        let inverse = case.config.contains("DDIMInverse");
        let config = SchedulerConfig::parse(&case.config.replace("DDIMInverse", "DDIM")).unwrap();
        let schedule = config.schedule.build().unwrap();
        let options = SamplerOptions { steps: Some(case.steps), ..config.options.clone() };
        let plan = if inverse {
            invert::plan(&schedule, &options, 1)
        } else {
            (samplers::find(config.sampler()).unwrap().plan)(&schedule, &options)
        };
        let plan = plan.unwrap_or_else(|error| panic!("{}: {error}", case.config));
        assert_close(&case.config, plan.start, case.start, 1e-6, 0.0);
        let tensor = |values: &[f64]| {
            let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
            Tensor::from_slice(&cpu, [1, 1, values.len(), 1], &values).unwrap()
        };
        let mut run = Run::new(&plan, tensor(&case.xs[0]));
        for (i, &time) in case.times.iter().enumerate() {
            let what = format!("{} in {} steps, call {i} at {time}", case.config, case.steps);
            run.x = tensor(&case.xs[i]);
            // A step to where x is already is left out here.
            let Some(step) = run.next() else {
                assert!(distance(&case.xs[i + 1], &case.xs[i]) < 1e-6, "{what}");
                break;
            };
            assert_close(&what, step.time_step, time, 1e-6, 2e-3);
            run.advance(&cpu, &tensor(&case.outputs[i]), images, false).unwrap();
            // Their noise in place of ours.
            let mut ours = vec![0.0_f32; z.len()];
            images.address(Purpose::Sampler, i as u64).fill_normal(0, &mut ours);
            let x = run.x.as_slice().iter().zip(z.iter().zip(&ours));
            let x: Vec<f64> = x.map(|(&x, (z, ours))| f64::from(x) + step.sigma * (z - f64::from(*ours))).collect();
            let error = distance(&x, &case.xs[i + 1]);
            assert!(error <= 1e-5, "{what}: {x:?} is off by {error:e} from {:?}", case.xs[i + 1]);
        }
        assert!(run.next().is_none(), "{}: they take {} calls", case.config, case.times.len());
    }
}

#[test]
fn a_wrong_history_is_noticed() {
    // The comparison above could not fail if histories did not matter.
    let cpu: Cpu<f32> = Cpu::new(CpuOptions::default()).unwrap();
    let case = fixture().cases.into_iter().find(|case| case.config.contains("solver_order\":3")).unwrap();
    let config = SchedulerConfig::parse(&case.config).unwrap();
    let options = SamplerOptions { steps: Some(case.steps), ..config.options.clone() };
    let plan = (samplers::find(config.sampler()).unwrap().plan)(&config.schedule.build().unwrap(), &options).unwrap();
    let after = |first: f32| {
        let mut run = Run::new(&plan, Tensor::zeros(&cpu, [1, 1, 1, 1]).unwrap());
        for i in 0..4 {
            run.x = Tensor::from_slice(&cpu, [1, 1, 1, 1], &[0.5]).unwrap();
            let output = Tensor::from_slice(&cpu, [1, 1, 1, 1], &[if i == 1 { first } else { 0.2 }]).unwrap();
            run.advance(&cpu, &output, Images { seed: 0, first: 0 }, false).unwrap();
        }
        run.x.as_slice()[0]
    };
    assert!((after(0.2) - after(0.3)).abs() > 1e-3, "what was said two calls ago matters at third order");
}

#[test]
fn an_inverted_image_comes_back() {
    let cpu: Cpu<f32> = Cpu::new(CpuOptions::default()).unwrap();
    let schedule = ScheduleSettings::default().build().unwrap();
    let images = Images { seed: 2, first: 0 };
    let image: Vec<f32> = (0..16).map(|i| (i as f32 * 0.7).sin()).collect();
    let x_0 = || Tensor::from_slice(&cpu, [1, 4, 4, 1], &image).unwrap();
    // A network whose answer changes with x as much as it does with a picture's.
    let model = |prediction: Prediction| {
        let (cpu, schedule) = (&cpu, &schedule);
        move |x: &Tensor<Cpu<f32>>, t: f64| {
            let level = Level::of(schedule, t as usize);
            let values: Vec<f32> = x.as_slice().iter().map(|&x| best(prediction, level, f64::from(x)) as f32).collect();
            Tensor::from_slice(cpu, x.shape(), &values).map_err(KernelError::from)
        }
    };
    for &prediction in Prediction::ALL {
        let options = SamplerOptions { prediction, steps: Some(50), clip: None, ..SamplerOptions::default() };
        let back_by = |iterations| {
            let plan = invert::plan(&schedule, &options, iterations).unwrap();
            let x_t = plan.run(&cpu, x_0(), images, false, model(prediction), |_| Ok(())).unwrap();
            let plan = (samplers::find("ddim").unwrap().plan)(&schedule, &options).unwrap();
            let back = plan.run(&cpu, x_t, images, false, model(prediction), |_| Ok(())).unwrap();
            let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            distance(&wide(back.as_slice()), &wide(&image))
        };
        let (once, often) = (back_by(1), back_by(8));
        assert!(once < 0.3, "{prediction}: {once}");
        assert!(often < 0.02 * once.max(0.05), "{prediction}: {often} after {once}");
    }
}
