//! Batches made by a thread in the background while the last one is being learnt from.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::{DataError, Loader};

/// A batch under way: asked for with empty numbers, answered with full ones.
struct Job {
    step: u64,
    images: Vec<f32>,
    labels: Vec<u32>,
    result: Result<(), DataError>,
}

/// A [`Loader`] that works ahead. What it gives is what the loader gives: it asks for the batches
/// of the steps that come next, and starts anew if another one is wanted.
#[derive(Debug)]
pub struct ReadAhead {
    loader: Loader,
    batch: usize,
    depth: usize,
    /// Steps that were asked for and have not been taken, in order.
    pending: VecDeque<u64>,
    /// Buffers that rest.
    spare: Vec<(Vec<f32>, Vec<u32>)>,
    jobs: Option<SyncSender<Job>>,
    done: Receiver<Job>,
    thread: Option<JoinHandle<()>>,
}

impl ReadAhead {
    /// Starts a thread that keeps `depth` (at least 1) batches ready.
    ///
    /// # Errors
    /// [`DataError::SmallerThanBatch`], or [`DataError::Io`] if no thread can be started.
    pub fn new(loader: Loader, batch: usize, depth: usize) -> Result<Self, DataError> {
        loader.data().check_batch(batch)?;
        let depth = depth.max(1);
        let (jobs, asked) = sync_channel::<Job>(depth);
        let (answer, done) = sync_channel::<Job>(depth);
        let worker = loader.clone();
        let thread = std::thread::Builder::new()
            .name("read-ahead".to_owned())
            .spawn(move || {
                for mut job in asked {
                    job.result = worker.batch(job.step, &mut job.images, &mut job.labels);
                    if answer.send(job).is_err() {
                        break;
                    }
                }
            })
            .map_err(|e| DataError::io(loader.data().path(), "starting a thread to read ahead", e))?;
        let image = loader.data().image_len();
        let spare = (0..depth).map(|_| (vec![0.0; batch * image], vec![0; batch])).collect();
        let (jobs, thread) = (Some(jobs), Some(thread));
        Ok(Self { loader, batch, depth, pending: VecDeque::new(), spare, jobs, done, thread })
    }

    /// The loader behind it.
    pub fn loader(&self) -> &Loader {
        &self.loader
    }

    /// As [`Loader::batch`], and has the next ones made meanwhile. Steps may come in any order; going
    /// up by one is what it is quick at.
    ///
    /// # Errors
    /// As [`Loader::batch`]; [`DataError::ReadAhead`] if the thread is gone.
    pub fn batch(&mut self, step: u64, images: &mut [f32], labels: &mut [u32]) -> Result<(), DataError> {
        if labels.len() != self.batch || images.len() != self.batch * self.loader.data().image_len() {
            return self.loader.batch(step, images, labels);
        }
        while self.pending.front().is_some_and(|&first| first != step) {
            let job = self.receive()?;
            self.spare.push((job.images, job.labels));
        }
        self.ask(step)?;
        let job = self.receive()?;
        images.copy_from_slice(&job.images);
        labels.copy_from_slice(&job.labels);
        self.spare.push((job.images, job.labels));
        job.result?;
        self.ask(step + 1)
    }

    /// Asks for batches until `depth` are under way, the first of them that of step `first`.
    fn ask(&mut self, first: u64) -> Result<(), DataError> {
        let mut next = self.pending.back().map_or(first, |&last| last + 1);
        while self.pending.len() < self.depth {
            let Some((images, labels)) = self.spare.pop() else { break };
            let job = Job { step: next, images, labels, result: Ok(()) };
            self.jobs.as_ref().ok_or(DataError::ReadAhead)?.send(job).map_err(|_| DataError::ReadAhead)?;
            self.pending.push_back(next);
            next += 1;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<Job, DataError> {
        let job = self.done.recv().map_err(|_| DataError::ReadAhead)?;
        self.pending.pop_front();
        Ok(job)
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        // Without a sender the thread ends after what it was asked for; there is room for all answers.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It cannot have anything left to say: results travel with their batches.
            let _ = thread.join();
        }
    }
}
