//! The bound's terms against NumPy's of the same outputs (`tests/fixtures/eval/make_nll.py`).

use ddpm_train::Error;
use ddpm_train::diffusion::Variance;
use ddpm_train::eval::{Likelihood, Terms, terms};
use serde_json::Value;

use crate::fixed_network::{COUNT, Fixed, LEARNED_COUNT, SEED, fixtures, pictures};

/// Bits per dimension; measured: 8.5e-10, with learned variances 1.3e-13.
const TOLERANCE: f64 = 1e-5;

fn measured(fixed: &Fixed, count: usize, batch: usize) -> Vec<Terms> {
    let mut all = Vec::new();
    for first in (0..count).step_by(batch) {
        let x_0 = pictures(&fixed.cpu, first..(first + batch).min(count));
        all.extend(terms(&fixed.denoiser(), &x_0, None, SEED, first as u64, || Ok::<_, Error>(())).unwrap());
    }
    all
}

fn fixture(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixtures().join("eval").join(name)).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// Compares every term of every picture, and what is made of them.
fn compare(all: &[Terms], wanted: &Value) {
    let mut worst = (0.0, String::new());
    let mut compare = |what: &str, got: &[f64], wanted: &[f64]| {
        assert_eq!(got.len(), wanted.len(), "{what}");
        for (i, (got, wanted)) in got.iter().zip(wanted).enumerate() {
            let error = (got - wanted).abs();
            assert!(error.is_finite(), "{what}[{i}]");
            if error > worst.0 {
                worst = (error, format!("{what}[{i}]: {got}, NumPy has {wanted}"));
            }
        }
    };
    let images = wanted["images"].as_array().unwrap();
    assert_eq!(all.len(), images.len());
    for (i, (terms, wanted)) in all.iter().zip(images).enumerate() {
        let of = |name: &str| numbers(&wanted[name]);
        compare(&format!("picture {i}, kl"), &terms.kl, &of("kl"));
        compare(&format!("picture {i}, mse"), &terms.eps_mse, &of("eps_mse"));
        compare(&format!("picture {i}, mse of x_0"), &terms.x_0_mse, &of("x_0_mse"));
        let ends = [terms.prior, terms.decoder, terms.decoder_exact];
        compare(&format!("picture {i}, ends"), &ends, &of("prior_decoder_exact"));
    }
    let found = Likelihood::of(all).unwrap();
    let curve = found.curve();
    let last = curve.last().unwrap();
    let summary = [found.terms.total(), found.std_error, last.rate, last.rmse];
    compare("total, standard error, rate, rmse", &summary, &numbers(&wanted["summary"]));
    println!("worst: {} at {}", worst.0, worst.1);
    assert!(worst.0 < TOLERANCE, "{}", worst.1);
}

#[test]
fn every_term_of_every_picture_is_numpys() {
    compare(&measured(&Fixed::new(2), COUNT, COUNT), &fixture("nll.json"));
}

#[test]
fn terms_of_learned_variances_are_numpys() {
    let wanted = fixture("nll_learned.json");
    for variance in [Variance::Learned, Variance::LearnedRange] {
        let fixed = Fixed::learned(2, variance);
        let all = measured(&fixed, LEARNED_COUNT, LEARNED_COUNT);
        compare(&all, &wanted[variance.name()]);
        assert_eq!(measured(&fixed, LEARNED_COUNT, 1), all, "a picture alone");
    }
}

/// v of the blend reaches the bound: at 0 and 1 it is that of the two fixed variances.
#[test]
fn a_blend_lies_between_the_fixed_variances() {
    let of = |variance, blend| {
        let mut fixed = Fixed::new(2);
        fixed.model.scheduler.options.variance = variance;
        fixed.model.scheduler.options.variance_blend = blend;
        let all = measured(&fixed, 1, 1);
        all[0].kl.clone()
    };
    // t = 0 apart: there fixed_large takes β̃_1
    assert_eq!(of(Variance::Blend, 0.0)[1..], of(Variance::FixedSmall, 0.0)[1..]);
    for (blend, large) in of(Variance::Blend, 1.0).iter().zip(of(Variance::FixedLarge, 0.0)) {
        assert!((blend - large).abs() <= 1e-12 * large.abs(), "{blend}, fixed_large has {large}");
    }
}

#[test]
fn the_same_bits_for_any_batch_and_number_of_threads() {
    assert_eq!(measured(&Fixed::new(1), COUNT, 5), measured(&Fixed::new(2), COUNT, COUNT));
}
