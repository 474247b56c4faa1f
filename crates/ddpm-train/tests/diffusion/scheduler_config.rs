//! Reading and writing `scheduler_config.json`.

use ddpm_train::diffusion::scheduler_config::{SchedulerClass, SchedulerConfig};
use ddpm_train::diffusion::{BetaSchedule, Prediction, ScheduleSettings, Variance};
use ddpm_train::samplers::{FinalSigma, Levels, Previous, SamplerOptions, Spacing, Threshold};
use ddpm_train::settings::Settings;

fn parse(text: &str) -> SchedulerConfig {
    SchedulerConfig::parse(text).unwrap()
}

#[test]
fn a_missing_key_is_the_class_default() {
    let ddpm = parse(r#"{"_class_name": "DDPMScheduler"}"#);
    assert_eq!(ddpm.class, SchedulerClass::Ddpm);
    assert_eq!(ddpm.schedule, ScheduleSettings::default());
    let default = SamplerOptions::default();
    let spacing = Some(Spacing::Leading);
    let theirs = SamplerOptions { previous: Previous::FixedStride, clip: Some(1.0), spacing, ..default.clone() };
    let small = SamplerOptions { variance: Variance::FixedSmall, ..theirs.clone() };
    assert_eq!((ddpm.sampler(), &ddpm.options), ("ddpm", &small));
    let ddim = parse(r#"{"_class_name": "DDIMScheduler"}"#);
    assert_eq!((ddim.sampler(), &ddim.options), ("ddim", &theirs));
    let pndm = parse(r#"{"_class_name": "PNDMScheduler"}"#);
    let unclipped = SamplerOptions { clip: None, ..theirs };
    let of_pndm = SamplerOptions { set_alpha_to_one: false, skip_prk_steps: false, ..unclipped.clone() };
    assert_eq!((pndm.sampler(), &pndm.options), ("pndm", &of_pndm));
    let over_levels = SamplerOptions { spacing: Some(Spacing::Linspace), ..unclipped };
    let of_solver = SamplerOptions { order: Some(2), ..over_levels.clone() };
    for (class, sampler, options) in [
        ("EulerDiscreteScheduler", "euler", &over_levels),
        ("EulerAncestralDiscreteScheduler", "euler-a", &over_levels),
        ("HeunDiscreteScheduler", "heun", &over_levels),
        ("LMSDiscreteScheduler", "lms", &over_levels),
        ("DPMSolverMultistepScheduler", "dpm++2m", &of_solver),
        ("UniPCMultistepScheduler", "unipc", &of_solver),
    ] {
        // What a class does not know it does not follow.
        let read = parse(&format!(r#"{{"_class_name": "{class}", "clip_sample": null, "set_alpha_to_one": false}}"#));
        assert_eq!((read.sampler(), &read.options), (sampler, options));
    }
    let heun = parse(r#"{"_class_name": "HeunDiscreteScheduler"}"#).schedule;
    assert_eq!((heun.beta_start, heun.beta_end), (0.00085, 0.012));
    assert_eq!(parse("{}"), ddpm);
}

#[test]
fn keys_are_understood() {
    let config = parse(
        r#"{"_class_name": "DDIMScheduler", "_diffusers_version": "0.3.0", "num_train_timesteps": 500, "beta_start": 0.00085,
            "beta_end": 0.012, "beta_schedule": "scaled_linear", "trained_betas": null, "clip_sample": false,
            "set_alpha_to_one": false, "steps_offset": 1, "prediction_type": "v_prediction", "timestep_spacing": "trailing",
            "rescale_betas_zero_snr": true, "skip_prk_steps": true}"#,
    );
    let schedule = ScheduleSettings {
        schedule: BetaSchedule::ScaledLinear,
        timesteps: 500,
        beta_start: 0.00085,
        beta_end: 0.012,
        zero_terminal_snr: true,
        trained_betas: None,
    };
    assert_eq!(config.schedule, schedule);
    let options = &config.options;
    assert_eq!((options.clip, options.set_alpha_to_one, options.steps_offset), (None, false, 1));
    assert_eq!((options.prediction, options.spacing), (Prediction::V, Some(Spacing::Trailing)));

    assert_eq!(parse(r#"{"clip_sample_range": 2.5}"#).options.clip, Some(2.5));
    assert_eq!(parse(r#"{"thresholding": true, "clip_sample": false}"#).options.clip, Some(1.0), "it is clipping");
    assert_eq!(
        parse(r#"{"trained_betas": [0.1, 0.2], "num_train_timesteps": 2}"#).schedule.beta().unwrap(),
        [0.1, 0.2]
    );
}

#[test]
fn what_has_no_counterpart_is_named_with_its_value() {
    for (text, key, value) in [
        (r#"{"_class_name": "LCMScheduler"}"#, "_class_name", "LCMScheduler"),
        (r#"{"beta_schedule": "laplace"}"#, "beta_schedule", "laplace"),
        (r#"{"variance_type": "learned"}"#, "variance_type", "learned_range"),
        (r#"{"variance_type": "fixed_large_log"}"#, "variance_type", "fixed_large_log"),
        (r#"{"prediction_type": "flow"}"#, "prediction_type", "flow"),
        (r#"{"timestep_spacing": "quad"}"#, "timestep_spacing", "quad"),
        (r#"{"thresholding": true, "sample_max_value": 0.5}"#, "sample_max_value", "0.5"),
        (r#"{"thresholding": true, "dynamic_thresholding_ratio": 2}"#, "dynamic_thresholding_ratio", "2"),
        (r#"{"_class_name": "EulerDiscreteScheduler", "use_beta_sigmas": true}"#, "use_beta_sigmas", "true"),
        (r#"{"_class_name": "EulerDiscreteScheduler", "final_sigmas_type": "one"}"#, "final_sigmas_type", "one"),
        (r#"{"_class_name": "EulerDiscreteScheduler", "sigma_max": 80}"#, "sigma_max", "80"),
        (
            r#"{"_class_name": "EulerDiscreteScheduler", "interpolation_type": "log_linear"}"#,
            "interpolation_type",
            "log",
        ),
        (r#"{"_class_name": "DPMSolverMultistepScheduler", "solver_order": 4}"#, "solver_order", "4"),
        (r#"{"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}"#, "algorithm_type", "dpms"),
        (r#"{"_class_name": "DPMSolverMultistepScheduler", "variance_type": "learned"}"#, "variance_type", "learned"),
        (r#"{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -5.1}"#, "lambda_min_clipped", "-5.1"),
        (r#"{"_class_name": "UniPCMultistepScheduler", "predict_x0": false}"#, "predict_x0", "false"),
        (r#"{"num_train_timesteps": -5}"#, "num_train_timesteps", "-5"),
        (r#"{"num_train_timesteps": "many"}"#, "num_train_timesteps", "many"),
        (r#"{"clip_sample": 1}"#, "clip_sample", "1"),
        (r#"{"clip_sample_range": 0}"#, "clip_sample_range", "0"),
        (r#"{"beta_start": []}"#, "beta_start", "[]"),
        (r#"{"trained_betas": [0.1, "x"]}"#, "trained_betas", "list of numbers"),
        (r#"{"predict_epsilon": false}"#, "predict_epsilon", "false"),
    ] {
        let message = SchedulerConfig::parse(text).unwrap_err().to_string();
        assert!(message.contains(&format!("`{key}`")) && message.contains(value), "{text}: {message}");
    }
    for text in ["", "[]", "{\"a\":", "7"] {
        assert!(SchedulerConfig::parse(text).unwrap_err().to_string().starts_with("scheduler_config.json"));
    }
}

#[test]
fn what_is_written_is_read_back() {
    use SchedulerClass::{Dpm, Euler, EulerAncestral, Lms, Pndm, UniPc};
    let (solvers, unclipped) = ([Dpm, UniPc], [Pndm, Dpm, Euler, EulerAncestral, UniPc, Lms]);
    let (small, least) = (Variance::FixedSmall, FinalSigma::SigmaMin);
    for &class in SchedulerClass::ALL {
        for &kind in BetaSchedule::ALL {
            for spacing in [Spacing::Leading, Spacing::Trailing, Spacing::Linspace] {
                for (&prediction, clip) in Prediction::ALL.iter().zip([None, Some(1.0), Some(2.0)]) {
                    let config = SchedulerConfig {
                        class,
                        schedule: ScheduleSettings { schedule: kind, timesteps: 30, ..ScheduleSettings::default() },
                        options: SamplerOptions {
                            prediction,
                            clip: if unclipped.contains(&class) { None } else { clip },
                            spacing: Some(spacing),
                            previous: Previous::FixedStride,
                            variance: if class == SchedulerClass::Ddpm { small } else { Variance::default() },
                            order: solvers.contains(&class).then_some(3),
                            levels: if class == SchedulerClass::Lms { Levels::Karras } else { Levels::TimeSteps },
                            final_sigma: if class == SchedulerClass::Euler { least } else { FinalSigma::Zero },
                            threshold: solvers.contains(&class).then_some(Threshold { ratio: 0.9, max: 2.0 }),
                            floor_times: class == SchedulerClass::Dpm && kind == BetaSchedule::Cosine,
                            ..SamplerOptions::default()
                        },
                    };
                    let read = parse(&config.to_json().unwrap());
                    assert_eq!((read.class, &read.options), (class, &config.options));
                    assert_eq!(read.schedule.build(), config.schedule.build(), "{kind}");
                }
            }
        }
    }
    let with = |options| SchedulerConfig { options, ..SchedulerConfig::default() }.to_json();
    let large = with(SamplerOptions { variance: Variance::FixedLarge, ..SamplerOptions::default() });
    assert_eq!(parse(&large.unwrap()).options.variance, Variance::FixedLarge);
    let variance =
        |variance, variance_blend| with(SamplerOptions { variance, variance_blend, ..SamplerOptions::default() });
    let read = |text: Result<String, _>| parse(&text.unwrap()).options.variance;
    assert_eq!(read(variance(Variance::LearnedRange, 0.0)), Variance::LearnedRange);
    assert_eq!(read(variance(Variance::Blend, 0.0)), Variance::FixedSmall);
    assert_eq!(read(variance(Variance::Blend, 1.0)), Variance::FixedLarge);
    for (kind, blend) in [(Variance::Blend, 0.5), (Variance::Learned, 0.0)] {
        let message = variance(kind, blend).unwrap_err().to_string();
        assert!(message.contains("variance_type") && message.contains(kind.name()), "{message}");
    }
    let mean = with(SamplerOptions { prediction: Prediction::Mean, ..SamplerOptions::default() });
    assert!(mean.unwrap_err().to_string().contains("prediction_type"));
    let quad = with(SamplerOptions { spacing: Some(Spacing::Quad), ..SamplerOptions::default() });
    assert!(quad.unwrap_err().to_string().contains("timestep_spacing"));
}

#[test]
fn a_runs_settings_survive_the_trip() {
    let mut settings = Settings::default();
    settings.diffusion.schedule = BetaSchedule::Warmup10;
    settings.diffusion.timesteps = 300;
    settings.diffusion.prediction = Prediction::V;
    settings.diffusion.variance = Variance::FixedSmall;
    settings.diffusion.clip_range = 1.25;
    settings.diffusion.zero_terminal_snr = true;
    let config = SchedulerConfig::from(&settings);
    let read = parse(&config.to_json().unwrap());
    assert_eq!(read.schedule.build(), settings.schedule().build());
    assert_eq!(
        SamplerOptions { previous: Previous::Listed, spacing: None, ..read.options },
        (&settings.diffusion).into()
    );
    assert_eq!((config.options.prediction, config.options.clip), (Prediction::V, Some(1.25)));
    settings.diffusion.clip = false;
    assert_eq!(SchedulerConfig::from(&settings).options.clip, None);
}
