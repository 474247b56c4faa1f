//! Plans: their time steps, and what their steps have in common.

use ddpm_train::diffusion::{Prediction, Schedule, ScheduleSettings, Variance};
use ddpm_train::samplers::{self, Plan, Previous, ReverseStep, SAMPLERS, SamplerOptions, Spacing};

use super::assert_close;

fn schedule() -> Schedule {
    ScheduleSettings::default().build().unwrap()
}

fn plan(name: &str, options: &SamplerOptions) -> Plan {
    (samplers::find(name).unwrap().plan)(&schedule(), options).unwrap()
}

/// Two plans do the same to x, output and z.
fn assert_same(a: &Plan, b: &Plan) {
    assert_eq!(a.steps.len(), b.steps.len());
    for (a, b) in a.steps.iter().zip(&b.steps) {
        assert_eq!(a.time_step, b.time_step);
        for (x, output, z) in [(0.3, -0.8, 0.0), (-1.2, 0.4, 1.0), (2.5, 2.5, -0.5)] {
            let t = a.time_step;
            assert_close(&format!("step at {t}"), a.apply(x, output, z), b.apply(x, output, z), 1e-9, 1e-9);
        }
    }
}

#[test]
fn spacings_by_hand() {
    let of = |spacing: Spacing, total, steps| spacing.time_steps(total, steps, 0).unwrap();
    assert_eq!(of(Spacing::Leading, 10, 3), [6, 3, 0]);
    assert_eq!(of(Spacing::Trailing, 10, 4), [9, 7, 4, 1], "10, 7.5, 5, 2.5 to the even neighbour, less 1");
    assert_eq!(of(Spacing::Linspace, 10, 3), [9, 4, 0], "4.5 to the even neighbour");
    assert_eq!(of(Spacing::Quad, 10, 3), [8, 2, 0]);
    assert_eq!(of(Spacing::Quad, 4, 4), [3, 1, 0], "time steps that fall together are visited once");
    assert_eq!(Spacing::Leading.time_steps(10, 3, 2).unwrap(), [8, 5, 2]);
    for &spacing in Spacing::ALL {
        let steps = of(spacing, 1000, 1000);
        assert!(steps.is_sorted_by(|a, b| a > b), "{spacing}");
        if spacing != Spacing::Quad {
            assert_eq!(steps, (0..1000).rev().collect::<Vec<_>>(), "all steps are all steps");
        }
        assert!(spacing.time_steps(10, 0, 0).is_err() && spacing.time_steps(10, 11, 0).is_err());
    }
    let message = Spacing::Leading.time_steps(10, 10, 1).unwrap_err().to_string();
    assert!(message.contains("steps_offset 1") && message.contains("time step 10"), "{message}");
    assert!(Spacing::Leading.time_steps(10, 1, usize::MAX).is_err());
}

#[test]
fn implicit_sampling_with_all_the_noise_is_ancestral_sampling() {
    // η = 1 gives σ² = β̃ (Song et al. 2021, section 4.1); with the ε of the clipped x_0 the means agree too, and
    // without clipping there is but one ε.
    for prediction in [Prediction::Eps, Prediction::X0, Prediction::V] {
        for steps in [1, 13, 250, 1000] {
            let options = SamplerOptions {
                prediction,
                steps: Some(steps),
                eta: 1.0,
                variance: Variance::FixedSmall,
                ..SamplerOptions::default()
            };
            let clipped = SamplerOptions { clipped_eps: true, ..options.clone() };
            assert_same(&plan("ddpm", &clipped), &plan("ddim", &clipped));
            let unclipped = SamplerOptions { clip: None, ..options };
            assert_same(&plan("ddpm", &unclipped), &plan("ddim", &unclipped));
        }
    }
}

#[test]
fn the_kind_of_prediction_does_not_matter() {
    // The same network in three disguises takes the same steps.
    for name in ["ddpm", "ddim", "dpm++2m", "euler", "euler-a", "heun", "unipc", "lms"] {
        let of = |prediction| {
            plan(name, &SamplerOptions { prediction, steps: Some(20), eta: 0.5, ..SamplerOptions::default() })
        };
        let (eps, x_0, v) = (of(Prediction::Eps), of(Prediction::X0), of(Prediction::V));
        for i in 0..20 {
            let level = eps.steps[i].level;
            let (x, output, z) = (0.7, 0.2, -1.0);
            let want = eps.steps[i].apply(x, output, z);
            let as_x_0 = Prediction::Eps.x_0(level).of(eps.steps[i].input * x, output);
            let as_v = Prediction::Eps.v(level).of(eps.steps[i].input * x, output);
            assert_close("x0", x_0.steps[i].apply(x, as_x_0, z), want, 1e-9, 1e-9);
            assert_close("v", v.steps[i].apply(x, as_v, z), want, 1e-9, 1e-9);
        }
    }
}

#[test]
fn the_last_step_is_the_predicted_image() {
    for sampler in SAMPLERS {
        for &spacing in Spacing::ALL {
            for &variance in Variance::ALL {
                let spacing = Some(spacing);
                let options =
                    SamplerOptions { spacing, variance, steps: Some(7), eta: 1.0, ..SamplerOptions::default() };
                let plan = plan(sampler.name, &options);
                let (last, others) = plan.steps.split_last().unwrap();
                assert_eq!((last.coefficients().sigma, last.log_variance), (0.0, None));
                let noisy = ["ddpm", "ddim", "dpm++sde", "euler-a"].contains(&sampler.name);
                let is_noisy = |step: &ReverseStep| step.sigma > 0.0 || step.log_variance.is_some();
                assert!(others.iter().all(|step| is_noisy(step) == noisy), "{} {spacing:?}", sampler.name);
                // The two that use slopes alone end with a step of high order.
                if !["pndm", "lms"].contains(&sampler.name) {
                    let x_0 = last.x_0(0.4, 0.1);
                    assert_close(sampler.name, last.apply(0.4, 0.1, 5.0), x_0, 1e-12, 0.0);
                    assert!(last.advance.values.is_empty() && last.advance.base.is_none());
                }
            }
        }
    }
}

#[test]
fn deterministic_sampling_draws_nothing() {
    let plan = plan("ddim", &SamplerOptions { steps: Some(50), ..SamplerOptions::default() });
    let visited: Vec<_> = plan.steps.iter().map(|step| step.time_step).collect();
    assert_eq!(visited, (0..50).rev().map(|k| f64::from(20 * k)).collect::<Vec<_>>());
    assert!(plan.steps.iter().all(|step| step.sigma == 0.0));
}

#[test]
fn a_fixed_stride_differs_where_it_misses_the_list() {
    let of = |spacing, previous| {
        let spacing = Some(spacing);
        plan("ddim", &SamplerOptions { spacing, previous, steps: Some(7), ..SamplerOptions::default() })
    };
    assert_eq!(of(Spacing::Leading, Previous::Listed), of(Spacing::Leading, Previous::FixedStride));
    assert_ne!(of(Spacing::Linspace, Previous::Listed), of(Spacing::Linspace, Previous::FixedStride));
    assert_ne!(of(Spacing::Trailing, Previous::Listed), of(Spacing::Trailing, Previous::FixedStride));
}

#[test]
fn options_out_of_range_are_named() {
    let refused = |options: SamplerOptions| {
        (samplers::find("ddim").unwrap().plan)(&schedule(), &options).unwrap_err().to_string()
    };
    assert!(refused(SamplerOptions { eta: 1.5, ..SamplerOptions::default() }).contains("eta"));
    assert!(refused(SamplerOptions { eta: f64::NAN, ..SamplerOptions::default() }).contains("eta"));
    assert!(refused(SamplerOptions { clip: Some(0.0), ..SamplerOptions::default() }).contains("clip"));
    assert!(refused(SamplerOptions { steps: Some(1001), ..SamplerOptions::default() }).contains("1001"));
    let error = samplers::find("dimm").unwrap_err().to_string();
    assert!(error.contains("did you mean `ddim`") && error.contains("ddpm"), "{error}");

    let pure_noise = ScheduleSettings { zero_terminal_snr: true, ..ScheduleSettings::default() }.build().unwrap();
    for sampler in SAMPLERS {
        let of = |prediction| {
            let options = SamplerOptions { prediction, steps: Some(5), ..SamplerOptions::default() };
            (sampler.plan)(&pure_noise, &SamplerOptions { spacing: Some(Spacing::Trailing), ..options })
        };
        // Those over noise levels put a very small ᾱ in its place.
        if !sampler.takes_levels {
            assert!(of(Prediction::Eps).unwrap_err().to_string().contains("pure noise"), "{}", sampler.name);
        }
        if sampler.name == "pndm" {
            continue; // its steps are made of ε alone
        }
        for step in of(Prediction::V).unwrap().steps {
            assert!(step.apply(0.5, 0.5, 0.5).is_finite(), "{}", sampler.name);
        }
    }
}
