//! What is shown and drawn while training.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use ddpm_train::{
    run::{EncodedPng, Events, RunDir, RunError},
    settings::Settings,
    trainer::{Observer, Preview, StepReport},
};
use serde_json::json;

use super::{
    outputs,
    report::{self, Facts},
};
use crate::{
    output::Output,
    picture::{
        grid::{self, Images},
        png,
    },
    progress::{Progress, Smooth},
};

/// Shows progress, and draws previews and the loss curve.
pub(super) struct Watch {
    output: Output,
    run: RunDir,
    settings: Settings,
    facts: Facts,
    events: Option<Events>,
    progress: Option<Progress>,
    loss: Smooth,
    speed: Smooth,
}

impl Watch {
    /// For a run that has not begun.
    pub(super) fn new(output: Output, run: &RunDir, settings: &Settings, facts: &Facts) -> Self {
        Self {
            output,
            run: run.clone(),
            settings: settings.clone(),
            facts: facts.clone(),
            events: None,
            progress: None,
            loss: Smooth::default(),
            speed: Smooth::default(),
        }
    }

    /// Training begins, with so many steps done before.
    pub(super) fn begin(&mut self, done: u64) {
        if done < self.settings.train.steps {
            if self.settings.log.tensorboard {
                let opened = Events::open(&self.run.events(), done, now());
                self.events = opened.map_err(|error| self.no_events(&error)).ok();
            }
            self.progress = Some(Progress::new(self.output, "step", done, self.settings.train.steps));
        }
    }

    /// Training has ended.
    pub(super) fn finish(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
    }

    /// TensorBoard's file is a convenience: training goes on without it.
    fn no_events(&mut self, error: &RunError) {
        self.message(&format!("nothing more is written for TensorBoard: {error}"));
    }

    fn draw(&mut self, preview: &Preview) -> anyhow::Result<()> {
        for (name, images) in [("", &preview.ema), ("-raw", &preview.raw)] {
            let (n, height, width, channels) = images.dim();
            let values: Vec<f32> = images.iter().copied().collect();
            let picture = grid::grid(Images { n, height, width, channels, values: &values })?;
            let path = self.run.samples().join(format!("step-{:06}{name}.png", preview.step));
            let about = json!({
                "sampler": self.settings.preview.sampler, "steps": self.settings.preview.steps, "eta": self.settings.preview.eta, "seed": self.settings.train.seed,
                "weights": if name.is_empty() { "ema" } else { "raw" }, "model_step": preview.step,
                "index": [0, n.saturating_sub(1)], "program": concat!("ddpm ", env!("CARGO_PKG_VERSION")),
            });
            let text = [("ddpm".to_owned(), about.to_string())];
            png::write(&path, &picture, &text)?;
            if let Some(events) = &mut self.events {
                let bytes = std::fs::read(&path)?;
                let (height, width, channels) = (picture.height, picture.width, picture.channels);
                let tag = if name.is_empty() { "samples" } else { "samples (raw)" };
                events.picture(now(), preview.step, tag, EncodedPng { height, width, channels, bytes: &bytes })?;
            }
        }
        outputs::curve(&self.run, &self.settings)?;
        report::write(&self.run, &self.settings, &self.facts)
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl Observer for Watch {
    fn step(&mut self, report: &StepReport) {
        let loss = self.loss.add(report.loss);
        let speed = self.speed.add(report.images_per_s);
        if let Some(progress) = &mut self.progress {
            progress.at(report.step, || {
                let heldout = report.heldout.map(|h| format!("  held out {:.4}", h.ema)).unwrap_or_default();
                format!("loss {loss:.4}{heldout}  lr {:.1e}  {speed:.0} images/s", report.lr)
            });
        }
    }

    fn logged(&mut self, report: &StepReport) {
        let Some(events) = &mut self.events else { return };
        // The same keys as in metrics.jsonl, by the same way.
        let line = serde_json::to_value(report).unwrap_or_default();
        let numbers = line.as_object().into_iter().flatten().filter(|(key, _)| *key != "step");
        let numbers: Vec<_> = numbers.filter_map(|(key, value)| Some((key.as_str(), value.as_f64()?))).collect();
        if let Err(error) = events.numbers(now(), report.step, &numbers) {
            self.events = None;
            self.no_events(&error);
        }
    }

    fn preview(&mut self, preview: &Preview) {
        // A picture that cannot be written is no reason to lose the training.
        if let Err(error) = self.draw(preview) {
            self.message(&format!("the preview of step {} could not be written: {error:#}", preview.step));
        }
    }

    fn checkpoint(&mut self, _step: u64, _folder: &Path) {}

    fn message(&mut self, line: &str) {
        match &self.progress {
            Some(progress) => progress.note(line),
            None => self.output.note(line),
        }
    }
}
