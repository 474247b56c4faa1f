use rayon::prelude::*;

use crate::TensorError;

/// Below this a job is done before a second thread has woken.
const WORTH_SHARING_NS: usize = 20_000;

/// A pool of threads; work is cut by shape alone, so their number changes no bit.
pub(super) struct Threads {
    pool: Option<rayon::ThreadPool>,
    count: usize,
}

impl Threads {
    pub(super) fn new(count: Option<usize>) -> Result<Self, TensorError> {
        let count = count
            .or_else(|| std::env::var("RAYON_NUM_THREADS").ok()?.parse().ok().filter(|&n| n > 0))
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
        if !(1..=1024).contains(&count) {
            return Err(TensorError::Threads { threads: count, reason: "from 1 to 1024 make sense".into() });
        }
        let pool = if count == 1 {
            None
        } else {
            let built = rayon::ThreadPoolBuilder::new().num_threads(count).thread_name(|i| format!("ddpm-{i}")).build();
            Some(built.map_err(|e| TensorError::Threads { threads: count, reason: e.to_string() })?)
        };
        Ok(Self { pool, count })
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// How many threads would share a job.
    pub(super) fn at_once(&self, count: usize, nanoseconds: usize) -> usize {
        if nanoseconds >= WORTH_SHARING_NS { self.count.min(count) } else { 1 }
    }

    pub(super) fn run(&self, count: usize, nanoseconds: usize, job: impl Fn(usize) + Send + Sync) {
        match &self.pool {
            Some(pool) if self.at_once(count, nanoseconds) > 1 => {
                // single pieces: they are cut coarse, and the last ones must spread
                pool.install(|| (0..count).into_par_iter().with_max_len(1).for_each(job));
            }
            _ => (0..count).for_each(job),
        }
    }
}
