//! Results go to standard output, everything else to standard error.

use std::io::{self, Write};

use crate::args::Talk;

/// Where a command's words go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    quiet: bool,
    json: bool,
}

impl Output {
    /// As the flags say.
    pub(crate) fn new(talk: Talk) -> Self {
        Self { quiet: talk.quiet, json: talk.json }
    }

    /// Whether progress is to be shown.
    pub(crate) fn shows_progress(self) -> bool {
        !self.quiet
    }

    /// A remark while working: to standard error, unless quiet.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            // Nobody to tell is no reason to stop.
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// A result for people; left out where the result is to be JSON.
    pub(crate) fn result(self, text: &str) -> io::Result<()> {
        if self.json { Ok(()) } else { print(text) }
    }

    /// The result for programs: one line of JSON, if asked for.
    pub(crate) fn json(self, value: &serde_json::Value) -> io::Result<()> {
        if self.json { print(&value.to_string()) } else { Ok(()) }
    }
}

/// A line, or several, to standard output.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.trim_end_matches('\n'))?;
    out.flush()
}
