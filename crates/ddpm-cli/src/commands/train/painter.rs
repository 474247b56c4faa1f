//! What is drawn while training goes on, on a thread of its own: no step waits for a picture.

use std::{
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread::JoinHandle,
    time::{SystemTime, UNIX_EPOCH},
};

use ddpm_train::{
    checkpoint::Weights,
    run::{EncodedPng, Events, RunDir, RunError},
    settings::Settings,
    trainer::Preview,
};

use super::{
    outputs,
    report::{self, Facts},
};
use crate::picture::{
    grid::{self, Images},
    png,
};

/// Jobs that may wait: beyond them training waits too, so that pictures do not pile up in memory.
const WAITING: usize = 256;

/// Writes previews, the loss curve, the run's page and TensorBoard's file, in the order in which it is told.
pub(super) struct Painter {
    jobs: SyncSender<Job>,
    complaints: Receiver<String>,
    thread: JoinHandle<()>,
}

enum Job {
    Preview(Box<Preview>),
    Numbers { time: f64, step: u64, values: Vec<(String, f64)> },
}

impl Painter {
    /// Starts with TensorBoard's file, if there is to be one.
    pub(super) fn start(
        run: &RunDir,
        settings: &Settings,
        facts: &Facts,
        events: Option<Events>,
    ) -> std::io::Result<Self> {
        let ((jobs, todo), (tell, complaints)) = (sync_channel(WAITING), channel());
        let (run, settings, facts) = (run.clone(), settings.clone(), facts.clone());
        let mut work = Work { run, settings, facts, events, tell };
        let paint = move || todo.into_iter().for_each(|job| work.on(job));
        let thread = std::thread::Builder::new().name("painter".to_owned()).spawn(paint)?;
        Ok(Self { jobs, complaints, thread })
    }

    /// Draws a preview, in time.
    pub(super) fn preview(&self, preview: &Preview) {
        self.queue(Job::Preview(Box::new(preview.clone())));
    }

    /// Adds numbers to TensorBoard's file, in time.
    pub(super) fn numbers(&self, step: u64, values: Vec<(String, f64)>) {
        self.queue(Job::Numbers { time: now(), step, values });
    }

    fn queue(&self, job: Job) {
        // It ends only when told to; were it to panic, training would go on without pictures.
        let _ = self.jobs.send(job);
    }

    /// What went wrong since this was asked last.
    pub(super) fn complaints(&self) -> impl Iterator<Item = String> {
        self.complaints.try_iter()
    }

    /// Waits until all is written; returns what went wrong.
    pub(super) fn finish(self) -> Vec<String> {
        let Self { jobs, complaints, thread } = self;
        drop(jobs);
        let end = thread.join().err().map(|_| "drawing previews ended early".to_owned());
        complaints.into_iter().chain(end).collect()
    }
}

/// The thread's side.
struct Work {
    run: RunDir,
    settings: Settings,
    facts: Facts,
    events: Option<Events>,
    tell: Sender<String>,
}

impl Work {
    fn on(&mut self, job: Job) {
        match job {
            // A picture that cannot be written is no reason to lose the training.
            Job::Preview(preview) => {
                if let Err(error) = self.draw(&preview) {
                    self.complain(format!("the preview of step {} could not be written: {error:#}", preview.step));
                }
            }
            Job::Numbers { time, step, values } => {
                let Some(events) = &mut self.events else { return };
                let values: Vec<_> = values.iter().map(|(key, value)| (key.as_str(), *value)).collect();
                if let Err(error) = events.numbers(time, step, &values) {
                    self.events = None;
                    self.complain(no_events(&error));
                }
            }
        }
    }

    fn complain(&self, line: String) {
        // Nobody listens once the run is over.
        let _ = self.tell.send(line);
    }

    fn draw(&mut self, preview: &Preview) -> anyhow::Result<()> {
        for (weights, images) in [(Weights::Ema, &preview.ema), (Weights::Raw, &preview.raw)] {
            let name = if weights == Weights::Ema { "" } else { "-raw" };
            let (n, height, width, channels) = images.dim();
            let values: Vec<f32> = images.iter().copied().collect();
            let picture = grid::grid(Images { n, height, width, channels, values: &values })?;
            let path = self.run.samples().join(format!("step-{:06}{name}.png", preview.step));
            let about = outputs::about_pictures(&self.settings, weights, preview.step, n);
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

/// TensorBoard's file is a convenience: training goes on without it.
pub(super) fn no_events(error: &RunError) -> String {
    format!("nothing more is written for TensorBoard: {error}")
}

/// Seconds since 1970.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
