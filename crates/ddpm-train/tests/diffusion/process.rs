//! Schedules, the forward process, its posterior, and predictions.

use ddpm_train::diffusion::forward::{Noising, noising_table};
use ddpm_train::diffusion::{
    BetaSchedule, DiffusionError, Level, Posterior, Prediction, Schedule, ScheduleSettings, Variance,
};
use proptest::prelude::*;

use super::assert_close;

fn schedule(kind: BetaSchedule, timesteps: usize) -> Schedule {
    ScheduleSettings { schedule: kind, timesteps, ..ScheduleSettings::default() }.build().unwrap()
}

#[test]
fn the_papers_schedule_has_the_values_of_plain_loops() {
    let schedule = schedule(BetaSchedule::Linear, 1000);
    let mut log_alpha_bar = 0.0;
    for t in 0..1000 {
        let beta = (1e-4 * (999 - t) as f64 + 0.02 * t as f64) / 999.0;
        log_alpha_bar += (-beta).ln_1p();
        assert_close("beta", schedule.beta()[t], beta, 1e-14, 0.0);
        assert_close("alpha_bar", schedule.alpha_bar()[t], log_alpha_bar.exp(), 1e-12, 0.0);
    }
    // Known from many programs: almost nothing of the image is left.
    assert_close("alpha_bar[0]", schedule.alpha_bar()[0], 0.9999, 1e-15, 0.0);
    assert_close("alpha_bar[999]", schedule.alpha_bar()[999], 4.0358e-5, 1e-4, 0.0);
}

#[test]
fn every_form_of_beta_is_what_its_formula_says() {
    let of = |kind| schedule(kind, 100).beta().to_vec();
    let (start, end) = (1e-4f64, 0.02f64);

    let root = |t: f64| start.sqrt() + (end.sqrt() - start.sqrt()) * t / 99.0;
    let warm = |t: usize, warm: usize| {
        if t < warm { start + (end - start) * t as f64 / (warm - 1) as f64 } else { end }
    };
    let alpha_bar = |s: f64| ((s + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
    for t in 0..100 {
        let x = t as f64;
        let rows = [
            (BetaSchedule::ScaledLinear, root(x).powi(2)),
            (BetaSchedule::Cosine, (1.0 - alpha_bar((x + 1.0) / 100.0) / alpha_bar(x / 100.0)).min(0.999)),
            (BetaSchedule::Sigmoid, start + (end - start) / (1.0 + (6.0 - 12.0 * x / 99.0).exp())),
            (BetaSchedule::Const, end),
            (BetaSchedule::Jsd, 1.0 / (100.0 - x)),
            (BetaSchedule::Warmup10, warm(t, 10)),
            (BetaSchedule::Warmup50, warm(t, 50)),
        ];
        for (kind, want) in rows {
            assert_close(&format!("{kind}[{t}]"), of(kind)[t], want, 1e-11, 0.0);
        }
    }
    assert_eq!(of(BetaSchedule::Cosine)[99], 0.999, "the cap");
    assert_eq!(schedule(BetaSchedule::Jsd, 100).alpha_bar()[99], 0.0, "jsd ends in pure noise");
}

#[test]
fn names_go_out_and_come_back() {
    for &kind in BetaSchedule::ALL {
        assert_eq!(kind.to_string().parse(), Ok(kind));
    }
    assert_eq!("squaredcos_cap_v2".parse(), Ok(BetaSchedule::Cosine));
    assert_eq!("quad".parse(), Ok(BetaSchedule::ScaledLinear));
    assert_eq!("v_prediction".parse(), Ok(Prediction::V));
    let error = "cosin".parse::<BetaSchedule>().unwrap_err();
    assert_eq!(error.nearest(), Some("cosine"));
    let message = error.to_string();
    assert!(message.contains("did you mean `cosine`?") && message.contains("warmup50"), "{message}");
}

#[test]
fn schedules_that_cannot_be_are_refused() {
    let refused = |settings: ScheduleSettings| settings.build().unwrap_err().to_string();
    let default = ScheduleSettings::default;
    assert!(refused(ScheduleSettings { timesteps: 0, ..default() }).contains("got 0"));
    assert!(refused(ScheduleSettings { timesteps: usize::MAX, ..default() }).contains("time steps"));
    assert!(refused(ScheduleSettings { beta_start: 0.0, ..default() }).contains("beta[0]"));
    assert!(refused(ScheduleSettings { beta_end: 1.5, ..default() }).contains("beta[666]"));
    assert!(refused(ScheduleSettings { beta_end: f64::NAN, ..default() }).contains("NaN"));
    assert!(refused(ScheduleSettings { trained_betas: Some(vec![0.1; 3]), ..default() }).contains("3 betas"));
    assert!(matches!(
        Schedule::from_beta(vec![1.0, 0.5]),
        Err(DiffusionError::BetaOutOfRange { time_step: 0, beta: 1.0 })
    ));
}

#[test]
fn signal_falls_and_ratio_with_it() {
    for &kind in BetaSchedule::ALL {
        for timesteps in [1, 2, 10, 1000] {
            let schedule = schedule(kind, timesteps);
            let mut product = 1.0;
            for t in 0..timesteps {
                assert_eq!(schedule.alpha_bar_before(t), product);
                product *= schedule.alpha(t);
                assert_eq!(schedule.alpha_bar()[t], product, "{kind}");
                assert!(t == 0 || schedule.snr(t) < schedule.snr(t - 1), "{kind} at {t}");
            }
        }
    }
    let schedule = Schedule::from_beta(vec![0.2]).unwrap();
    assert_close("snr", schedule.snr(0), 4.0, 1e-14, 0.0);
}

#[test]
fn steps_one_by_one_make_the_closed_form() {
    let schedule = schedule(BetaSchedule::Cosine, 200);
    let mut chain = Noising { signal: 1.0, noise: 0.0 };
    for (t, factors) in noising_table(&schedule).into_iter().enumerate() {
        chain = Noising::of_step(&schedule, t).after(chain);
        let closed = Noising::of_image(&schedule, t);
        assert_close("signal", chain.signal, closed.signal, 1e-12, 0.0);
        assert_close("noise", chain.noise, closed.noise, 1e-12, 0.0);
        assert_close("variance is kept", closed.signal.powi(2) + closed.noise.powi(2), 1.0, 1e-15, 0.0);
        assert_eq!(factors, (closed.signal as f32, closed.noise as f32));
    }
}

#[test]
fn the_posterior_is_bayes_rule() {
    // q(x_{t-1} | x_t, x_0) ∝ q(x_t | x_{t-1}) q(x_{t-1} | x_0), two Gaussians in x_{t-1}: precisions add.
    for kind in [BetaSchedule::Linear, BetaSchedule::Cosine, BetaSchedule::Jsd] {
        let schedule = schedule(kind, 50);
        let posterior = Posterior::new(&schedule);
        assert_eq!(posterior.beta_tilde(0), 0.0);
        assert_close("the last step returns x_0", posterior.mean(0).0, 1.0, 1e-12, 0.0);
        assert_eq!(posterior.mean(0).1, 0.0);
        for t in 1..50 {
            let (alpha, beta, before) = (schedule.alpha(t), schedule.beta()[t], schedule.alpha_bar_before(t));
            let (likelihood, prior) = (alpha / beta, 1.0 / (1.0 - before));
            let variance = 1.0 / (likelihood + prior);
            let (from_x_0, from_x_t) = (prior * before.sqrt() * variance, alpha.sqrt() / beta * variance);
            assert_close("variance", posterior.beta_tilde(t), variance, 1e-11, 0.0);
            assert_close("x_0", posterior.mean(t).0, from_x_0, 1e-11, 0.0);
            assert_close("x_t", posterior.mean(t).1, from_x_t, 1e-11, 0.0);
        }
    }
}

#[test]
fn variances_follow_their_rules_at_the_first_time_step() {
    let schedule = schedule(BetaSchedule::Linear, 1000);
    let posterior = Posterior::new(&schedule);
    for kind in [Variance::FixedLarge, Variance::FixedSmall, Variance::Blend] {
        assert_eq!(posterior.sampling_variance(kind, 0), 0.0);
        assert_close("ln at 0", posterior.log_variance(kind, 0), posterior.beta_tilde(1).ln(), 1e-14, 0.0);
    }
    // With plain numbers: alpha_bar_0 = 0.9999, beta_1 = 1e-4 + 0.0199/999.
    let beta_1 = 1e-4 + 0.0199 / 999.0;
    let beta_tilde_1 = beta_1 * 1e-4 / (1.0 - 0.9999 * (1.0 - beta_1));
    assert_close("beta_tilde[1]", posterior.beta_tilde(1), beta_tilde_1, 1e-10, 0.0);
    let (beta, beta_tilde) = (schedule.beta()[500], posterior.beta_tilde(500));
    assert_eq!(posterior.sampling_variance(Variance::FixedLarge, 500), beta);
    assert_eq!(posterior.sampling_variance(Variance::FixedSmall, 500), beta_tilde);
    assert_close("ln small", posterior.log_variance(Variance::FixedSmall, 500), beta_tilde.ln(), 1e-14, 0.0);
    assert_close("ln large", posterior.log_variance(Variance::FixedLarge, 500), beta.ln(), 1e-14, 0.0);
    let blend = posterior.clone().with_blend(0.3);
    assert_close("blend", blend.sampling_variance(Variance::Blend, 500), 0.7 * beta_tilde + 0.3 * beta, 1e-14, 0.0);
    let range = posterior.learned_log_variance(Variance::LearnedRange, 500);
    assert_close("range at -1", range.of(-1.0), beta_tilde.ln(), 1e-13, 0.0);
    assert_close("range at 1", range.of(1.0), beta.ln(), 1e-13, 0.0);
    assert_eq!(posterior.learned_log_variance(Variance::Learned, 500).of(-3.0), -3.0);
    let one = Posterior::new(&Schedule::from_beta(vec![0.3]).unwrap());
    assert_close("a chain of one", one.log_variance(Variance::FixedSmall, 0), 0.3f64.ln(), 1e-14, 0.0);
}

#[test]
fn respacing_keeps_alpha_bar() {
    for &kind in BetaSchedule::ALL {
        let schedule = schedule(kind, 100);
        let all: Vec<usize> = (0..100).collect();
        let same = schedule.respaced(&all).unwrap();
        assert_eq!(same.schedule.alpha_bar(), schedule.alpha_bar());
        for t in 0..100 {
            assert_close("beta", same.schedule.beta()[t], schedule.beta()[t], 1e-11, 0.0);
        }
        let some = schedule.respaced(&[3, 4, 50, 99]).unwrap();
        assert_eq!(some.time_steps, [3, 4, 50, 99]);
        let product = some.schedule.beta().iter().fold(1.0, |product, beta| product * (1.0 - beta));
        assert_close("product", product, schedule.alpha_bar()[99], 1e-11, 1e-14);
        assert_close("first", some.schedule.beta()[0], 1.0 - schedule.alpha_bar()[3], 1e-13, 0.0);
    }
    let schedule = schedule(BetaSchedule::Linear, 100);
    for (subset, place) in [(vec![], 0), (vec![5, 5], 1), (vec![7, 3], 1), (vec![1, 100], 1)] {
        let error = schedule.respaced(&subset).unwrap_err();
        assert!(matches!(&error, DiffusionError::Subset { place: got, .. } if *got == place), "{error}");
    }
}

#[test]
fn zero_terminal_snr_keeps_the_first_step_and_ends_in_noise() {
    let plain = schedule(BetaSchedule::ScaledLinear, 1000);
    let settings = ScheduleSettings {
        schedule: BetaSchedule::ScaledLinear,
        zero_terminal_snr: true,
        ..ScheduleSettings::default()
    };
    let schedule = settings.build().unwrap();
    assert_close("first", schedule.alpha_bar()[0], plain.alpha_bar()[0], 1e-14, 0.0);
    assert_eq!((schedule.alpha_bar()[999], schedule.beta()[999]), (0.0, 1.0));
    assert!(ScheduleSettings { timesteps: 1, ..settings }.build().is_err());
}

proptest! {
    #[test]
    fn predictions_say_the_same_in_four_ways(
        alpha_bar in 0.001f64..0.999, share in 0.05f64..1.0, x_0 in -1.0f64..1.0, eps in -4.0f64..4.0
    ) {
        let x_t = alpha_bar.sqrt() * x_0 + (1.0 - alpha_bar).sqrt() * eps;
        let v = alpha_bar.sqrt() * eps - (1.0 - alpha_bar).sqrt() * x_0;
        let before = alpha_bar + (1.0 - alpha_bar) * share;
        let level = Level { alpha_bar, before };
        let beta = 1.0 - alpha_bar / before;
        // Ho et al. 2020, eq. 7
        let mean = before.sqrt() * beta / (1.0 - alpha_bar) * x_0
            + (1.0 - beta).sqrt() * (1.0 - before) / (1.0 - alpha_bar) * x_t;
        let value = |of: Prediction| match of {
            Prediction::Eps => eps,
            Prediction::X0 => x_0,
            Prediction::Mean => mean,
            _ => v,
        };
        for &from in Prediction::ALL {
            let target = from.target(level);
            assert_close("target", target.signal * x_0 + target.noise * eps, value(from), 1e-12, 1e-12);
            for &to in Prediction::ALL {
                let got = from.convert(to, level).of(x_t, value(from));
                assert_close(&format!("{from} to {to}"), got, value(to), 1e-9, 1e-9);
            }
        }
    }
}

#[test]
fn eps_says_nothing_of_the_image_in_pure_noise() {
    let level = |alpha_bar| Level { alpha_bar, before: 1e-3 };
    let message = Prediction::Eps.check(999.0, level(0.0)).unwrap_err().to_string();
    assert!(message.contains("`eps`") && message.contains("999"), "{message}");
    assert!(Prediction::Eps.check(999.0, level(1e-80)).is_err(), "1/sqrt(alpha_bar) overflows f32");
    for prediction in [Prediction::V, Prediction::X0, Prediction::Mean] {
        assert!(prediction.check(999.0, level(0.0)).is_ok(), "{prediction}");
    }
}
