use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time spent in each kind of operation, and how often.
#[derive(Default)]
pub(super) struct Stopwatch(Mutex<BTreeMap<&'static str, (u64, Duration)>>);

impl Stopwatch {
    pub(super) fn time<R>(&self, operation: &'static str, run: impl FnOnce() -> R) -> R {
        let started = Instant::now();
        let result = run();
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, time) = times.entry(operation).or_default();
        *count += 1;
        *time += started.elapsed();
        result
    }

    pub(super) fn times(&self) -> Vec<(&'static str, u64, Duration)> {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.iter().map(|(&operation, &(count, time))| (operation, count, time)).collect()
    }
}
