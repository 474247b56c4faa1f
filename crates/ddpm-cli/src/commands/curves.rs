//! What `metrics.jsonl` tells of a run, as curves over steps.

use std::{collections::BTreeMap, fs};

use anyhow::Result;
use ddpm_train::{run::RunDir, settings::Settings};
use serde_json::{Map, Value};

use crate::{failure::Explain, picture::plot::Scale};

/// Lines whose mean loss tells how well a run went.
const LAST: usize = 200;

/// The numbers of a run: of each key, its values with their steps.
#[derive(Debug, Default)]
pub(super) struct Curves {
    columns: BTreeMap<String, Vec<(f64, f64)>>,
}

impl Curves {
    /// Reads a run's file; lines that are no objects with a step are passed over.
    pub(super) fn read(run: &RunDir) -> Result<Self> {
        let path = run.metrics();
        let text = fs::read_to_string(&path).at(path.display())?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut curves = Self::default();
        for line in text.lines() {
            let Ok(line) = serde_json::from_str::<Map<String, Value>>(line) else { continue };
            let Some(step) = line.get("step").and_then(Value::as_f64) else { continue };
            for (key, value) in line {
                if key != "step"
                    && let Some(value) = value.as_f64()
                {
                    curves.columns.entry(key).or_default().push((step, value));
                }
            }
        }
        curves
    }

    /// The curve of a key: steps and values. Empty where there is none.
    pub(super) fn get(&self, key: &str) -> &[(f64, f64)] {
        self.columns.get(key).map_or(&[], Vec::as_slice)
    }

    /// All keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.columns.keys().map(String::as_str)
    }

    /// The last step of which there is a line.
    pub(super) fn last_step(&self) -> Option<f64> {
        self.columns.values().filter_map(|points| points.last()).map(|(step, _)| *step).reduce(f64::max)
    }

    /// Mean loss of the last lines, and how many these are.
    pub(super) fn last_loss(&self) -> Option<(f64, usize)> {
        let loss = self.get("loss");
        let last = &loss[loss.len().saturating_sub(LAST)..];
        let mean = last.iter().map(|(_, loss)| loss).sum::<f64>() / last.len() as f64;
        (!last.is_empty()).then_some((mean, last.len()))
    }

    /// The middle one of a key's values.
    pub(super) fn median(&self, key: &str) -> Option<f64> {
        let mut values: Vec<f64> = self.get(key).iter().map(|(_, value)| *value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// Seconds spent in training steps.
    pub(super) fn seconds(&self, settings: &Settings) -> f64 {
        let images = settings.train.batch as f64 * settings.log.every as f64;
        self.get("images_per_s").iter().map(|(_, speed)| images / speed).sum()
    }
}

/// A key in words.
pub(super) fn title(key: &str) -> String {
    match key {
        "loss" => "loss".to_owned(),
        "heldout_loss" => "held-out loss".to_owned(),
        "heldout_loss_ema" => "held-out loss (ema)".to_owned(),
        "lr" => "learning rate".to_owned(),
        "grad_norm" => "gradient norm".to_owned(),
        "images_per_s" => "images/s".to_owned(),
        other => other.to_owned(),
    }
}

/// The axis that suits a key: losses and gradients fall by factors, a learning rate and a speed do not.
pub(super) fn scale(key: &str) -> Scale {
    match key {
        "grad_norm" => Scale::Log,
        "lr" | "images_per_s" => Scale::Linear,
        key if key.contains("loss") => Scale::Log,
        _ => Scale::Auto,
    }
}

/// Whether a key is measured with noise at every step.
pub(super) fn is_noisy(key: &str) -> bool {
    matches!(key, "loss" | "objective" | "grad_norm" | "images_per_s")
}

/// Means over neighbours on both sides, a tenth of the way back and ahead: the curve neither lags where it falls fast nor
/// shakes where it is flat.
pub(super) fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut sums = vec![0.0];
    for &(_, y) in points {
        sums.push(sums[sums.len() - 1] + y);
    }
    let mean = |(i, &(x, _)): (usize, &(f64, f64))| {
        let (from, to) = (i - i / 10, (i + i / 10 + 1).min(points.len()));
        (x, (sums[to] - sums[from]) / (to - from) as f64)
    };
    points.iter().enumerate().map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_key_and_the_rest_is_passed_over() {
        let curves = Curves::parse(
            "{\"step\":1,\"loss\":2.0,\"lr\":0.1}\nnonsense\n{\"step\":2,\"loss\":1.0,\"note\":\"x\"}\n{\"loss\":9}\n{\"step\":3,\"lo",
        );
        assert_eq!(curves.get("loss"), [(1.0, 2.0), (2.0, 1.0)]);
        assert_eq!((curves.get("lr"), curves.get("none")), (&[(1.0, 0.1)][..], &[][..]));
        assert_eq!(curves.keys().collect::<Vec<_>>(), ["loss", "lr"]);
        assert_eq!(
            (curves.last_loss(), curves.last_step(), curves.median("loss")),
            (Some((1.5, 2)), Some(2.0), Some(2.0))
        );
        assert_eq!(Curves::parse("").last_loss(), None);
    }

    #[test]
    fn smoothing_keeps_what_is_level_and_what_rises() {
        let points: Vec<_> = (0..100).map(|i| (f64::from(i), f64::from(i))).collect();
        for (x, y) in &smoothed(&points)[..90] {
            assert!((x - y).abs() <= 0.1 * x + 1e-9, "{x} {y}");
        }
        assert!(smoothed(&[]).is_empty());
    }
}
