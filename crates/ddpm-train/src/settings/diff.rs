//! What differs between two sets of settings, and what a resumed run may change.

use std::fmt;

use super::{Settings, keys};

/// One setting that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The setting.
    pub key: String,
    /// Its value in the run.
    pub before: String,
    /// Its value now.
    pub after: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.before, self.after)
    }
}

/// What resuming with changed settings would change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resume {
    /// Changes a run accepts: how long, and when something is saved, logged or shown.
    pub accepted: Vec<Change>,
    /// Changes that would make it another run.
    pub refused: Vec<Change>,
}

impl Settings {
    /// The settings that differ in `other`, in the order of [`keys`].
    pub fn changes(&self, other: &Self) -> Vec<Change> {
        let (before, after) = (self.table(), other.table());
        keys()
            .into_iter()
            .filter_map(|key| {
                let (section, name) = key.name.split_once('.')?;
                let (old, new) = (before.get(section)?.get(name)?, after.get(section)?.get(name)?);
                (old != new).then(|| Change { before: old.to_string(), after: new.to_string(), key: key.name.clone() })
            })
            .collect()
    }

    /// Sorts the changes from this run's settings to `other` into those it may go on with and those it may not.
    pub fn resume_with(&self, other: &Self) -> Resume {
        let (accepted, refused) = self.changes(other).into_iter().partition(|change| may_change(&change.key));
        Resume { accepted, refused }
    }
}

/// Whether a run may go on with another value of this setting.
fn may_change(key: &str) -> bool {
    let sections = ["checkpoint.", "log.", "preview.", "eval."];
    key == "train.steps" || sections.iter().any(|section| key.starts_with(section))
}
