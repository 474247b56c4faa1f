//! diffusers' schedulers, step by step: figures in `tests/fixtures/schedulers.json`, made by the script beside it.

use ddpm_train::diffusion::Variance;
use ddpm_train::diffusion::scheduler_config::{SchedulerClass, SchedulerConfig};
use ddpm_train::samplers::{self, SamplerOptions, Spacing};
use serde::Deserialize;

use super::assert_close;

#[derive(Deserialize)]
struct Fixture {
    x: Vec<f64>,
    output: Vec<f64>,
    z: Vec<f64>,
    cases: Vec<Case>,
    spacings: Vec<Hashed>,
    quadratic: Vec<Listed>,
}

#[derive(Deserialize)]
struct Case {
    config: serde_json::Value,
    steps: usize,
    eta: f64,
    clipped_eps: bool,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    t: usize,
    previous: Vec<f64>,
    x_0: Vec<f64>,
}

#[derive(Deserialize)]
struct Hashed {
    spacing: Spacing,
    time_steps: usize,
    hash: u64,
}

#[derive(Deserialize)]
struct Listed {
    time_steps: usize,
    steps: usize,
    times: Vec<usize>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../fixtures/schedulers.json")).unwrap()
}

#[test]
fn every_step_is_theirs() {
    let Fixture { x, output, z, cases, .. } = fixture();
    assert!(cases.len() > 70, "{} cases", cases.len());
    for case in cases {
        let config = SchedulerConfig::parse(&case.config.to_string()).unwrap();
        let schedule = config.schedule.build().unwrap();
        let options = SamplerOptions {
            steps: Some(case.steps),
            eta: case.eta,
            clipped_eps: case.clipped_eps,
            ..config.options.clone()
        };
        let plan = (samplers::find(config.sampler()).unwrap().plan)(&schedule, &options).unwrap();
        assert_eq!(plan.steps.len(), case.rows.len());
        for (i, (step, row)) in plan.steps.iter().zip(&case.rows).enumerate() {
            let what = format!("{} with {} steps, eta {}, at {}", case.config, case.steps, case.eta, row.t);
            assert_eq!(step.time_step, row.t as f64, "{what}");
            // The one difference on purpose: an ancestral chain's last step adds no noise here, there only at t = 0.
            let last = i + 1 == case.rows.len() && row.t > 0 && config.class == SchedulerClass::Ddpm;
            let surplus = if last && options.variance == Variance::FixedLarge {
                (1.0 - schedule.alpha_bar()[row.t]).sqrt()
            } else {
                0.0
            };
            for e in 0..x.len() {
                let x_0 = step.x_0(x[e], output[e]);
                assert_close(&what, x_0, row.x_0[e], 1e-9, 1e-9);
                let previous = step.apply(x[e], output[e], z[e]) + surplus * z[e];
                assert_close(&what, previous, row.previous[e], 1e-9, 1e-9);
            }
        }
    }
}

#[test]
fn time_steps_are_theirs_for_every_number_of_steps() {
    for Hashed { spacing, time_steps, hash } in fixture().spacings {
        let mut got = 0u128;
        for steps in 1..=time_steps {
            for t in spacing.time_steps(time_steps, steps, 0).unwrap() {
                got = (31 * got + t as u128 + 1) % ((1 << 61) - 1);
            }
        }
        assert_eq!(got, u128::from(hash), "{spacing} of {time_steps}");
    }
}

#[test]
fn quadratic_time_steps_are_the_ermon_groups() {
    for Listed { time_steps, steps, mut times } in fixture().quadratic {
        times.dedup();
        times.reverse();
        assert_eq!(Spacing::Quad.time_steps(time_steps, steps, 0).unwrap(), times);
    }
}
