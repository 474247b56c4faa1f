//! The bound's terms against NumPy's of the same outputs (`tests/fixtures/eval/make_nll.py`).

use ddpm_train::Error;
use ddpm_train::eval::{Likelihood, Terms, terms};
use serde_json::Value;

use crate::fixed_network::{COUNT, Fixed, SEED, fixtures, pictures};

/// Bits per dimension; measured: 8.5e-10.
const TOLERANCE: f64 = 1e-5;

fn measured(threads: usize, batch: usize) -> Vec<Terms> {
    let fixed = Fixed::new(threads);
    let mut all = Vec::new();
    for first in (0..COUNT).step_by(batch) {
        let x_0 = pictures(&fixed.cpu, first..(first + batch).min(COUNT));
        all.extend(terms(&fixed.denoiser(), &x_0, None, SEED, first as u64, || Ok::<_, Error>(())).unwrap());
    }
    all
}

#[test]
fn every_term_of_every_picture_is_numpys() {
    let text = std::fs::read_to_string(fixtures().join("eval/nll.json")).unwrap();
    let wanted: Value = serde_json::from_str(&text).unwrap();
    let numbers = |value: &Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    };
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
    let all = measured(2, COUNT);
    for (i, (terms, wanted)) in all.iter().zip(wanted["images"].as_array().unwrap()).enumerate() {
        let of = |name: &str| numbers(&wanted[name]);
        compare(&format!("picture {i}, kl"), &terms.kl, &of("kl"));
        compare(&format!("picture {i}, mse"), &terms.eps_mse, &of("eps_mse"));
        compare(&format!("picture {i}, mse of x_0"), &terms.x_0_mse, &of("x_0_mse"));
        let ends = [terms.prior, terms.decoder, terms.decoder_exact];
        compare(&format!("picture {i}, ends"), &ends, &of("prior_decoder_exact"));
    }
    let found = Likelihood::of(&all).unwrap();
    let curve = found.curve();
    let last = curve.last().unwrap();
    let summary = [found.terms.total(), found.std_error, last.rate, last.rmse];
    compare("total, standard error, rate, rmse", &summary, &numbers(&wanted["summary"]));
    println!("worst: {} at {}", worst.0, worst.1);
    assert!(worst.0 < TOLERANCE, "{}", worst.1);
}

#[test]
fn the_same_bits_for_any_batch_and_number_of_threads() {
    let one = measured(1, 5);
    assert_eq!(one, measured(2, COUNT));
}
