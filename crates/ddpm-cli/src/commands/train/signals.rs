//! Ctrl-C and its kin: the first asks to save and stop, the second leaves at once.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

/// What has arrived so far.
#[derive(Debug)]
pub(in crate::commands) struct Signals {
    stop: Arc<AtomicBool>,
    number: Arc<AtomicUsize>,
}

impl Signals {
    /// Starts to listen.
    pub(in crate::commands) fn listen() -> io::Result<Self> {
        let signals = Self { stop: Arc::default(), number: Arc::default() };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: only a second signal finds the flag set.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&signals.stop))?;
            flag::register_usize(signal, Arc::clone(&signals.number), signal as usize)?;
            flag::register(signal, Arc::clone(&signals.stop))?;
        }
        Ok(signals)
    }

    /// Set once it is time to stop.
    pub(in crate::commands) fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    /// Whether it is time to stop.
    pub(in crate::commands) fn came(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The signal's number.
    pub(in crate::commands) fn number(&self) -> u8 {
        u8::try_from(self.number.load(Ordering::Relaxed)).unwrap_or_default()
    }
}
