//! What a program may hear of a training run, in order to show it.

use std::path::Path;

use ndarray::Array4;
use serde::Serialize;

/// One step as it is reported and logged: its fields are those of a line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: u64,
    /// Mean squared error of what is predicted, unweighted, over the batch.
    pub loss: f64,
    /// The loss that is minimised, where that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objective: Option<f64>,
    /// Learning rate of the step.
    pub lr: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Images in a second of this step.
    pub images_per_s: f64,
    /// Loss on the held-out images, at steps with a preview.
    #[serde(flatten)]
    pub heldout: Option<Heldout>,
}

/// Mean squared error on the held-out images, always with the same t and ε: comparable between steps and runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Heldout {
    /// Of the weights as they are.
    #[serde(rename = "heldout_loss")]
    pub raw: f64,
    /// Of their average.
    #[serde(rename = "heldout_loss_ema")]
    pub ema: f64,
}

/// Images of the same latents by both sets of weights, `[N, H, W, C]`, nominally in [-1, 1].
///
/// Early on the average lags behind and shows noise while the weights themselves show shapes already.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// Steps done.
    pub step: u64,
    /// By the weights as they are.
    pub raw: Array4<f32>,
    /// By their average.
    pub ema: Array4<f32>,
}

/// Hears of a run's progress. Every method does nothing unless it is given a body.
pub trait Observer {
    /// A step was done.
    fn step(&mut self, report: &StepReport) {
        let _ = report;
    }

    /// A step was written to `metrics.jsonl`.
    fn logged(&mut self, report: &StepReport) {
        let _ = report;
    }

    /// A preview was made.
    fn preview(&mut self, preview: &Preview) {
        let _ = preview;
    }

    /// A checkpoint was written, and is complete.
    fn checkpoint(&mut self, step: u64, folder: &Path) {
        let _ = (step, folder);
    }

    /// One line that people should read.
    fn message(&mut self, line: &str) {
        let _ = line;
    }
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Observer for Quiet {}
