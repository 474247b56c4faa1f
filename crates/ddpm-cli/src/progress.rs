//! How far the work is: a bar on a terminal, a line now and then otherwise, always to standard error.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

/// Seconds between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Progress through a known number of steps.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    total: u64,
    view: View,
}

#[derive(Debug)]
enum View {
    Bar(ProgressBar),
    Lines { begun: Instant, first: u64, last: Option<Instant> },
    Nothing,
}

impl Progress {
    /// Progress from step `first` to `total` of `what`.
    pub(crate) fn new(output: Output, what: &'static str, first: u64, total: u64) -> Self {
        let view = if !output.shows_progress() {
            View::Nothing
        } else if io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
            let style = ProgressStyle::with_template("{prefix} {bar:28} {pos}/{len}  {msg}  {eta} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("━╸ "));
            bar.set_prefix(what);
            // The speed of a resumed run is that of its own steps.
            bar.set_position(first);
            bar.reset_eta();
            View::Bar(bar)
        } else {
            View::Lines { begun: Instant::now(), first, last: None }
        };
        Self { what, total, view }
    }

    /// After `done` steps, with a few words on how it goes.
    pub(crate) fn at(&mut self, done: u64, words: impl FnOnce() -> String) {
        let total = self.total;
        match &mut self.view {
            View::Bar(bar) => {
                bar.set_message(words());
                bar.set_position(done);
            }
            View::Lines { begun, first, last } => {
                let since = last.map_or(LINE_EVERY, |last| last.elapsed());
                if since < LINE_EVERY && done < total {
                    return;
                }
                *last = Some(Instant::now());
                let left = match done.saturating_sub(*first) {
                    0 => String::new(),
                    steps => {
                        let each = begun.elapsed().as_secs_f64() / steps as f64;
                        format!("  {} left", duration(each * total.saturating_sub(done) as f64))
                    }
                };
                let _ = writeln!(io::stderr().lock(), "{} {done}/{total}  {}{left}", self.what, words());
            }
            View::Nothing => {}
        }
    }

    /// A remark that does not break the bar.
    pub(crate) fn note(&self, text: &str) {
        match &self.view {
            View::Bar(bar) => bar.suspend(|| {
                let _ = writeln!(io::stderr().lock(), "{text}");
            }),
            View::Lines { .. } => {
                let _ = writeln!(io::stderr().lock(), "{text}");
            }
            View::Nothing => {}
        }
    }

    /// The end, reached or not.
    pub(crate) fn finish(self) {
        if let View::Bar(bar) = self.view {
            bar.abandon();
        }
    }
}

/// A duration as people say it: `42 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub(crate) fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// A number of bytes as people say it.
pub(crate) fn bytes(n: u64) -> String {
    let n = n as f64;
    match n {
        _ if n < 1e3 => format!("{n:.0} B"),
        _ if n < 1e6 => format!("{:.1} kB", n / 1e3),
        _ if n < 1e9 => format!("{:.1} MB", n / 1e6),
        _ => format!("{:.2} GB", n / 1e9),
    }
}

/// A whole number with its thousands apart.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A mean that forgets: follows a noisy series and starts at its first value.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Smooth {
    sum: f64,
    weight: f64,
}

impl Smooth {
    const KEEP: f64 = 0.98;

    /// Adds a value and returns the mean.
    pub(crate) fn add(&mut self, x: f64) -> f64 {
        self.sum = Self::KEEP * self.sum + (1.0 - Self::KEEP) * x;
        self.weight = Self::KEEP * self.weight + (1.0 - Self::KEEP);
        self.sum / self.weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_said_as_people_say_them() {
        assert_eq!(duration(59.4), "59 s");
        assert_eq!(duration(200.0), "3 min 20 s");
        assert_eq!(duration(7500.0), "2 h 5 min");
        assert_eq!(duration(1e5), "1 d 3 h");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(2_470_000_000), "2.47 GB");
        assert_eq!(thousands(35_746_307), "35,746,307");
        assert_eq!(thousands(999), "999");
    }

    #[test]
    fn a_smooth_mean_starts_at_the_first_value_and_follows() {
        let mut smooth = Smooth::default();
        assert!((smooth.add(5.0) - 5.0).abs() < 1e-12);
        let mean = (0..500).map(|_| smooth.add(1.0)).last();
        assert!(mean.is_some_and(|mean| (mean - 1.0).abs() < 1e-3));
    }
}
