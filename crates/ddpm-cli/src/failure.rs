//! How a failure reaches the user: one line what, one where, one what to do next, and an exit code.

use std::{fmt, io};

use ddpm_train::{named::UnknownName, run::RunError, settings::SettingsError};

/// Exit code of something that did not work.
pub(crate) const FAILED: u8 = 1;
/// Exit code of wrong usage: nothing was tried.
pub(crate) const USAGE: u8 = 2;

/// A failure with all that is said about it.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    code: u8,
    what: String,
    place: Option<String>,
    hint: Option<String>,
    /// Whether numbers ran into infinity.
    not_finite: bool,
}

/// A model's pictures are none.
#[derive(Debug, thiserror::Error)]
#[error("the model drew numbers that are infinite or not a number")]
pub(crate) struct NotNumbers;

impl Failure {
    /// Something did not work.
    pub(crate) fn new(what: impl fmt::Display) -> Self {
        Self { code: FAILED, what: what.to_string(), place: None, hint: None, not_finite: false }
    }

    /// Something was asked for that makes no sense.
    pub(crate) fn usage(what: impl fmt::Display) -> Self {
        Self { code: USAGE, ..Self::new(what) }
    }

    /// Something was asked for that has a meaning but no code yet.
    pub(crate) fn not_built(what: impl fmt::Display) -> Self {
        Self::usage(format!("{what} is not built yet"))
    }

    /// A signal ended the work, after everything was saved: 128 and the signal's number.
    pub(crate) fn stopped(signal: u8, what: impl fmt::Display) -> Self {
        Self { code: 128 + signal, ..Self::new(what) }
    }

    /// The file, folder, setting or step where it happened.
    pub(crate) fn place(mut self, place: impl fmt::Display) -> Self {
        self.place.get_or_insert(place.to_string());
        self
    }

    /// What to do next.
    pub(crate) fn next(mut self, hint: impl fmt::Display) -> Self {
        self.hint.get_or_insert(hint.to_string());
        self
    }

    fn from_error(error: &anyhow::Error) -> Self {
        if let Some(failure) = error.downcast_ref::<Self>() {
            return failure.clone();
        }
        let mut what = String::new();
        for cause in error.chain().map(|cause| one_line(&cause.to_string())) {
            // Some errors repeat their cause in their own words.
            if what.is_empty() {
                what = cause;
            } else if !what.contains(&cause) {
                what = format!("{what}: {cause}");
            }
        }
        let settings = find::<SettingsError>(error);
        let usage = settings.is_some() || find::<UnknownName>(error).is_some();
        let mut failure = if usage { Self::usage(what) } else { Self::new(what) };
        failure.not_finite = error.chain().any(|cause| {
            let of_training = cause.downcast_ref::<ddpm_train::Error>();
            matches!(of_training, Some(ddpm_train::Error::NotFinite { .. })) || cause.is::<NotNumbers>()
        });
        if let Some(hint) = settings.and_then(settings_hint).or(find::<RunError>(error).and_then(run_hint)) {
            failure = failure.next(hint);
        }
        failure
    }
}

/// The first error of a kind among an error and its causes.
fn find<E: std::error::Error + 'static>(error: &anyhow::Error) -> Option<&E> {
    error.chain().find_map(|cause| match cause.downcast_ref::<ddpm_train::Error>() {
        // A transparent wrapper shows its cause's text, but is no cause of its own.
        Some(ddpm_train::Error::Settings(inner)) => (inner as &dyn std::error::Error).downcast_ref::<E>(),
        Some(ddpm_train::Error::Run(inner)) => (inner as &dyn std::error::Error).downcast_ref::<E>(),
        _ => cause.downcast_ref::<E>(),
    })
}

fn settings_hint(error: &SettingsError) -> Option<&'static str> {
    Some(match error {
        SettingsError::UnknownKey { .. } => "ddpm config --preset digits lists every setting with its meaning",
        SettingsError::NotToml { .. } => "ddpm config --preset digits prints a file to start from",
        SettingsError::UnknownPreset { .. } => "ddpm info --preset NAME describes one",
        SettingsError::NotAnAssignment { .. } => "ddpm train --help shows examples",
        _ => return None,
    })
}

fn run_hint(error: &RunError) -> Option<&'static str> {
    Some(match error {
        RunError::Exists { .. } => "--resume goes on with it; another --out starts a new one",
        RunError::NotARun { .. } | RunError::NoRuns { .. } => "ddpm train starts one",
        RunError::Locked { .. } => "wait for it or stop it; --out starts a run elsewhere",
        RunError::NotAModel { .. } => "a model is a run's folder, one of its checkpoints, or a diffusers folder",
        RunError::NoCheckpoint { .. } => {
            "let it train until its first checkpoint, or train with --set checkpoint.every=N"
        }
        _ => return None,
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

/// Whether an error is that training or drawing ran into infinity.
pub(crate) fn is_not_finite(error: &anyhow::Error) -> bool {
    Failure::from_error(error).not_finite
}

/// The error with another hint, if a signal ended the work.
pub(crate) fn hint_if_stopped(error: anyhow::Error, hint: &str) -> anyhow::Error {
    match error.downcast::<Failure>() {
        Ok(failure) if failure.code > 128 => Failure { hint: Some(hint.to_owned()), ..failure }.into(),
        Ok(failure) => failure.into(),
        Err(error) => error,
    }
}

/// Adds to any error where it happened and what to do next.
pub(crate) trait Explain<T> {
    /// Says where it happened, unless that has been said.
    fn at(self, place: impl fmt::Display) -> anyhow::Result<T>;
    /// Says what to do next, unless that has been said.
    fn next(self, hint: impl fmt::Display) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Explain<T> for Result<T, E> {
    fn at(self, place: impl fmt::Display) -> anyhow::Result<T> {
        self.map_err(|error| with(error.into(), |failure| failure.place(place)))
    }

    fn next(self, hint: impl fmt::Display) -> anyhow::Result<T> {
        self.map_err(|error| with(error.into(), |failure| failure.next(hint)))
    }
}

fn with(error: anyhow::Error, add: impl FnOnce(Failure) -> Failure) -> anyhow::Error {
    // The reader of our output may go away at any time, and that must stay recognisable.
    if is_broken_pipe(&error) { error } else { add(Failure::from_error(&error)).into() }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(broken))
}

/// Prints a failure to standard error and returns the program's exit code.
#[allow(clippy::print_stderr)]
pub(crate) fn report(error: &anyhow::Error, command: &str) -> u8 {
    if is_broken_pipe(error) {
        return 0;
    }
    let failure = Failure::from_error(error);
    let place = failure.place.unwrap_or_else(|| format!("ddpm {command}"));
    let hint = failure.hint.unwrap_or_else(|| format!("ddpm {command} --help"));
    let (what, place, hint) = (one_line(&failure.what), one_line(&place), one_line(&hint));
    if failure.code > 128 {
        eprintln!("{what}\nhint: {hint}");
    } else {
        eprintln!("error: {what}\nwhere: {place}\nhint: {hint}");
    }
    failure.code
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A panic is a mistake of ours: say so in the same form, without a backtrace.
#[allow(clippy::print_stderr)]
pub(crate) fn replace_panic_message() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("no message");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        // `println!` to a reader that went away is the one panic that is not ours.
        if text.contains("Broken pipe") {
            return;
        }
        eprintln!(
            "error: a mistake in the program: {}\nwhere: {place}\nhint: please report it with the command and these lines",
            one_line(text)
        );
    }));
}
