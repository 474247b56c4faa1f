//! Distances and scores against NumPy's and SciPy's (`tests/fixtures/eval/make_scores.py`).

use ddpm_train::eval::scores::{Rows, agreement, cover, inception_score, kernel_distance};
use ddpm_train::eval::{Statistics, frechet_distance};
use serde_json::Value;

use crate::fixed_network::fixtures;
use crate::formula::uniform;

const WIDTH: usize = 12;

fn features(name: &str, count: usize, shift: f64, scale: f64) -> Vec<f32> {
    let flat: Vec<f64> = uniform(name, count * WIDTH).into_iter().map(|u| (u - 0.5) * 2.0).collect();
    let rows = flat.chunks_exact(WIDTH);
    let mixed = rows.flat_map(|row| (0..WIDTH).map(|j| row[j] + 0.5 * row[(j + WIDTH - 1) % WIDTH]));
    mixed.map(|x| (x * scale + shift) as f32).collect()
}

struct Case {
    model: Vec<f32>,
    data: Vec<f32>,
    wanted: Value,
}

impl Case {
    fn new() -> Self {
        let text = std::fs::read_to_string(fixtures().join("eval/scores.json")).unwrap();
        let wanted = serde_json::from_str(&text).unwrap();
        Self { model: features("model", 200, 0.3, 1.2), data: features("data", 150, 0.0, 1.0), wanted }
    }

    fn close(&self, name: &str, got: &[f64], tolerance: f64) {
        let wanted = &self.wanted[name];
        let wanted: Vec<f64> = match wanted.as_array() {
            Some(list) => list.iter().map(|x| x.as_f64().unwrap()).collect(),
            None => vec![wanted.as_f64().unwrap()],
        };
        assert_eq!(got.len(), wanted.len());
        for (got, wanted) in got.iter().zip(wanted) {
            let error = (got - wanted).abs() / wanted.abs();
            println!("{name}: {got}, wanted {wanted}: relative error {error:e}");
            assert!(error <= tolerance, "{name}: {got}, wanted {wanted}: relative error {error:e}");
        }
    }
}

#[test]
fn frechet_distances_are_scipys() {
    let case = Case::new();
    let distance = |model: &[f32], data: &[f32]| {
        let of = |rows| Statistics::of(rows, WIDTH).unwrap();
        frechet_distance(&of(model), &of(data)).unwrap()
    };
    let whole = distance(&case.model, &case.data);
    case.close("frechet_full_rank_sqrtm", &[whole], 1e-6);
    case.close("frechet_full_rank_svdvals", &[whole], 1e-10);
    // fewer images than features: the covariances are singular
    let few = distance(&case.model[..8 * WIDTH], &case.data[..9 * WIDTH]);
    case.close("frechet_singular_svdvals", &[few], 1e-10);
}

#[test]
fn the_other_scores_are_numpys() {
    let case = Case::new();
    let rows = |values| Rows::new(values, WIDTH).unwrap();
    let all = kernel_distance(rows(&case.model[..150 * WIDTH]), rows(&case.data), 3, 1000, 0).unwrap();
    case.close("kernel_distance_of_first_150", &[all.mean], 1e-10);
    assert!(all.std < 1e-12, "every subset is the whole set: {}", all.std);
    let logits: Vec<f32> = case.model.iter().map(|x| 3.0 * x).collect();
    let score = inception_score(rows(&logits), 10).unwrap();
    case.close("inception_score_in_10", &[score.mean, score.std], 1e-6);
    let found = cover(rows(&case.model), rows(&case.data)).unwrap();
    let list = [found.precision, found.recall, found.density, found.coverage];
    case.close("precision_recall_density_coverage", &list, 1e-12);
}

#[test]
fn subsets_of_the_kernel_distance_scatter_around_the_whole() {
    let case = Case::new();
    let rows = |values| Rows::new(values, WIDTH).unwrap();
    let (model, data) = (rows(&case.model[..150 * WIDTH]), rows(&case.data));
    let whole = kernel_distance(model, data, 1, 1000, 0).unwrap().mean;
    let parts = kernel_distance(model, data, 100, 40, 0).unwrap();
    assert!(parts.std > 0.01 && parts.count == 100, "{parts:?}");
    assert!((parts.mean - whole).abs() < 4.0 * parts.std_error(), "{parts:?}, whole {whole}");
    assert_eq!(kernel_distance(model, data, 100, 40, 0).unwrap(), parts);
    assert_ne!(kernel_distance(model, data, 100, 40, 1).unwrap(), parts);
    let narrow = Rows::new(&case.data, WIDTH / 2).unwrap();
    for message in [
        kernel_distance(model, narrow, 1, 10, 0).unwrap_err().to_string(),
        cover(model, rows(&case.data[..5 * WIDTH])).unwrap_err().to_string(),
        inception_score(rows(&case.data[..5 * WIDTH]), 10).unwrap_err().to_string(),
    ] {
        assert!(message.contains("expected") && message.contains("got"), "{message}");
    }
}

#[test]
fn agreement_is_the_share_of_largest_logits() {
    let logits = [1.0, 2.0, 0.0, 5.0, 4.0, 3.0, 0.0, 0.0, 1.0, 2.0, 2.0, 0.0];
    let of = |classes: &[usize]| agreement(Rows::new(&logits, 3).unwrap(), classes);
    assert_eq!(of(&[1, 0, 2, 2]).unwrap(), 0.75);
    assert_eq!(of(&[1, 0, 2, 0]).unwrap(), 0.75, "a tie is no agreement");
    assert_eq!(of(&[0, 1, 1, 2]).unwrap(), 0.0);
    assert!(of(&[0, 1]).unwrap_err().to_string().contains("4 classes"));
    assert!(of(&[0, 1, 3, 0]).unwrap_err().to_string().contains("classes below 3"));
}
