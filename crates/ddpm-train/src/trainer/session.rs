//! A run in its directory: when to log, to look, to save and to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ddpm_kernels::Backend;

use super::scores::Scorer;
use super::{FORWARDS_PER_STEP, Observer, StepReport, Trainer, takes_too_long};
use crate::checkpoint::{self, CheckpointError};
use crate::error::Error;
use crate::run::{Metrics, RunDir, RunLock};
use crate::samplers::Guidance;

/// Images whose gradients are summed in one go: micro-batches of a multiple of it change no bit.
const GROUP: usize = 16;

/// How [`Session::run`] ended, other than by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// It was told to stop, and has saved.
    Stopped,
    /// It has come to the step at which it was to stop, and has saved.
    StoppedAt,
}

/// A trainer at work in a run's directory, which no other trainer enters meanwhile.
#[derive(Debug)]
pub struct Session<B: Backend<Elem = f32>> {
    trainer: Trainer<B>,
    run: RunDir,
    metrics: Metrics,
    /// Step of the newest checkpoint.
    saved: Option<u64>,
    /// Time spent in steps since this began.
    trained: Duration,
    /// What scores are made with, once the first was due.
    scorer: Option<Scorer<B>>,
    _lock: RunLock,
}

impl<B: Backend<Elem = f32>> Session<B> {
    /// Takes up the run where its newest sound checkpoint left it, or begins at step 0: unfinished checkpoints are removed,
    /// damaged ones put aside with a line, and `metrics.jsonl` is cut back.
    ///
    /// # Errors
    /// [`Error::OtherRun`] if the checkpoint was made by other settings or data; those of files and device.
    pub fn begin(
        mut trainer: Trainer<B>,
        run: RunDir,
        lock: RunLock,
        observer: &mut dyn Observer,
    ) -> Result<Self, Error> {
        let checkpoints = run.checkpoints();
        checkpoint::remove_unfinished(&checkpoints)?;
        let found = checkpoint::newest(&checkpoints)?;
        if let Some(line) = found.report() {
            observer.message(&line);
        }
        for (step, error) in &found.passed_over {
            // What cannot be opened may be sound all the same.
            if matches!(error, CheckpointError::Damaged { .. }) {
                checkpoint::put_aside(&checkpoints, *step)?;
            }
        }
        if let Some(checkpoint) = &found.checkpoint
            && let Some(line) = trainer.restore(checkpoint)?
        {
            observer.message(&line);
        }
        let metrics = Metrics::open(&run.metrics(), trainer.steps_done())?;
        let saved = found.checkpoint.map(|checkpoint| checkpoint.state().step);
        Ok(Self { trainer, run, metrics, saved, trained: Duration::ZERO, scorer: None, _lock: lock })
    }

    /// The trainer.
    pub fn trainer(&self) -> &Trainer<B> {
        &self.trainer
    }

    /// The run's directory.
    pub fn run_dir(&self) -> &RunDir {
        &self.run
    }

    /// Trains until all steps are done, `stop_at` steps are done, or `stop` is set, and saves there.
    ///
    /// # Errors
    /// [`Error::NotFinite`] before an update that would spoil the weights; those of files, data and device. What was saved
    /// before stays.
    pub fn run(
        &mut self,
        stop: &AtomicBool,
        stop_at: Option<u64>,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, Error> {
        let train = &self.trainer.settings().train;
        let (total, micro) = (train.steps, self.trainer.settings().images_at_once());
        if micro < train.batch && !micro.is_multiple_of(GROUP) {
            observer.message(&format!(
                "micro-batches of {micro} are no multiple of {GROUP}: the weights will differ in their last bits from those of \
                 the whole batch"
            ));
        }
        let end = stop_at.map_or(total, |step| step.min(total));
        while self.trainer.steps_done() < end {
            if stop.load(Ordering::Relaxed) {
                return self.stopped(observer);
            }
            let started = Instant::now();
            let mut report = self.trainer.step()?;
            self.trained += started.elapsed();

            let last = report.step == total;
            if last || due(report.step, self.trainer.settings().preview.every) {
                self.look(&mut report, last, stop, observer)?;
            }
            if due(report.step, self.trainer.settings().eval.every) {
                let scorer = match self.scorer.take() {
                    Some(scorer) => scorer,
                    None => self.trainer.scorer()?,
                };
                report.scores = self.trainer.scores(&scorer, stop)?;
                self.scorer = Some(scorer);
            }
            if last
                || report.heldout.is_some()
                || report.scores.is_some()
                || due(report.step, self.trainer.settings().log.every)
            {
                self.metrics.append(&report)?;
                observer.logged(&report);
            }
            observer.step(&report);
            if report.step == end || due(report.step, self.trainer.settings().checkpoint.every) {
                self.save(observer)?;
            }
        }
        if stop.load(Ordering::Relaxed) && self.trainer.steps_done() < total {
            return self.stopped(observer);
        }
        Ok(if self.trainer.steps_done() < total { Outcome::StoppedAt } else { Outcome::Finished })
    }

    fn stopped(&mut self, observer: &mut dyn Observer) -> Result<Outcome, Error> {
        self.save(observer)?;
        Ok(Outcome::Stopped)
    }

    /// The held-out loss, and images unless they would take longer than the training so far. After the last step there are
    /// no images: the program makes its final ones.
    fn look(
        &self,
        report: &mut StepReport,
        last: bool,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<(), Error> {
        let started = Instant::now();
        report.heldout = self.trainer.heldout()?;
        let settings = self.trainer.settings();
        if last || settings.preview.count == 0 || stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let forward = match self.trainer.heldout_count() {
            0 => 1.0 / (FORWARDS_PER_STEP * report.images_per_s),
            count => started.elapsed().as_secs_f64() / (2 * count) as f64,
        };
        let passes = Guidance::passes(self.trainer.preview_guidance().as_ref());
        let wanted = 2.0 * forward * (passes * settings.preview.count * settings.preview.steps) as f64;
        if takes_too_long(wanted, self.trained.as_secs_f64()) {
            observer.message(&format!(
                "no preview at step {}: it would take about {wanted:.0} s, longer than the {:.0} s of training so far",
                report.step,
                self.trained.as_secs_f64()
            ));
            return Ok(());
        }
        if let Some(preview) = self.trainer.preview(stop)? {
            observer.preview(&preview);
        }
        Ok(())
    }

    /// Writes a checkpoint, unless there is one of this step, and removes old ones.
    fn save(&mut self, observer: &mut dyn Observer) -> Result<(), Error> {
        let step = self.trainer.steps_done();
        if self.saved == Some(step) || step == 0 {
            return Ok(());
        }
        // A checkpoint presumes the lines up to its step.
        self.metrics.sync()?;
        let checkpoints = self.run.checkpoints();
        let folder = self.trainer.save(&checkpoints)?;
        self.saved = Some(step);
        let keep = &self.trainer.settings().checkpoint;
        checkpoint::prune(&checkpoints, step, keep.keep, keep.keep_every)?;
        observer.checkpoint(step, &folder);
        Ok(())
    }
}

/// Whether something that happens every so many steps (0: never) happens after this one.
fn due(step: u64, every: u64) -> bool {
    every != 0 && step.is_multiple_of(every)
}
