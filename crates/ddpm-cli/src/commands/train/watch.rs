//! What is shown and drawn while training.

use std::path::{Path, PathBuf};

use ddpm_train::{
    data::DataSet,
    run::RunDir,
    settings::Settings,
    trainer::{Observer, Preview, StepReport},
};
use serde_json::json;

use super::outputs;
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
    data: PathBuf,
    progress: Option<Progress>,
    loss: Smooth,
    speed: Smooth,
}

impl Watch {
    /// For a run that has not begun.
    pub(super) fn new(output: Output, run: &RunDir, settings: &Settings, data: &DataSet) -> Self {
        Self {
            output,
            run: run.clone(),
            settings: settings.clone(),
            data: data.path().to_owned(),
            progress: None,
            loss: Smooth::default(),
            speed: Smooth::default(),
        }
    }

    /// Training begins, with so many steps done before.
    pub(super) fn begin(&mut self, done: u64) {
        if done < self.settings.train.steps {
            self.progress = Some(Progress::new(self.output, "step", done, self.settings.train.steps));
        }
    }

    /// Training has ended.
    pub(super) fn finish(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
    }

    fn draw(&self, preview: &Preview) -> anyhow::Result<()> {
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
        }
        outputs::curve(&self.run, &self.settings, &self.data)
    }
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
