//! What is shown while training, and what is given to the painter.

use std::path::Path;

use ddpm_train::{
    run::{Events, RunDir},
    settings::Settings,
    trainer::{Observer, Preview, StepReport},
};

use super::{
    painter::{self, Painter},
    report::Facts,
};
use crate::{
    output::Output,
    progress::{Progress, Smooth},
};

/// Shows progress, and has previews and the loss curve drawn.
pub(super) struct Watch {
    output: Output,
    run: RunDir,
    settings: Settings,
    facts: Facts,
    painter: Option<Painter>,
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
            painter: None,
            progress: None,
            loss: Smooth::default(),
            speed: Smooth::default(),
        }
    }

    /// Training begins, with so many steps done before.
    pub(super) fn begin(&mut self, done: u64) {
        if done >= self.settings.train.steps {
            return;
        }
        let mut events = None;
        if self.settings.log.tensorboard {
            match Events::open(&self.run.events(), done, painter::now()) {
                Ok(opened) => events = Some(opened),
                Err(error) => self.message(&painter::no_events(&error)),
            }
        }
        match Painter::start(&self.run, &self.settings, &self.facts, events) {
            Ok(painter) => self.painter = Some(painter),
            Err(error) => self.message(&format!("no previews are drawn: {error}")),
        }
        self.progress = Some(Progress::new(self.output, "step", done, self.settings.train.steps));
    }

    /// Training has ended; what was to be drawn is drawn.
    pub(super) fn finish(&mut self) {
        if let Some(painter) = self.painter.take() {
            for line in painter.finish() {
                self.message(&line);
            }
        }
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
    }
}

impl Observer for Watch {
    fn step(&mut self, report: &StepReport) {
        let complaints: Vec<_> = self.painter.iter().flat_map(Painter::complaints).collect();
        for line in complaints {
            self.message(&line);
        }
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
        let Some(painter) = self.painter.as_ref().filter(|_| self.settings.log.tensorboard) else { return };
        // The same keys as in metrics.jsonl, by the same way.
        let line = serde_json::to_value(report).unwrap_or_default();
        let numbers = line.as_object().into_iter().flatten().filter(|(key, _)| *key != "step");
        painter.numbers(report.step, numbers.filter_map(|(key, value)| Some((key.clone(), value.as_f64()?))).collect());
    }

    fn preview(&mut self, preview: &Preview) {
        if let Some(painter) = &self.painter {
            painter.preview(preview);
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
