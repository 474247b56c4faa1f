//! What can be wrong with a setting.

use super::key::Origin;

/// Why settings were refused. Every message says which key, which value, where it was written and what is allowed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// No setting has this name.
    #[error("{origin}: there is no setting `{key}`{}", hint(.nearest.as_ref()))]
    UnknownKey {
        /// The name that came.
        key: String,
        /// The most similar known key or section.
        nearest: Option<String>,
        /// Where it was written.
        origin: Origin,
    },
    /// A value of the wrong kind or out of its range.
    #[error("{origin}: {key} = {value} is not allowed; allowed: {allowed}{}", hint(.nearest.as_ref()))]
    NotAllowed {
        /// The setting.
        key: String,
        /// The value that came.
        value: String,
        /// What the setting takes.
        allowed: String,
        /// The most similar known name, where the setting takes names.
        nearest: Option<String>,
        /// Where it was written.
        origin: Origin,
    },
    /// Something that is not `section.name=value`.
    #[error("--set {text}: expected section.name=value, such as --set train.steps=1000")]
    NotAnAssignment {
        /// What came.
        text: String,
    },
    /// A file that is not TOML.
    #[error("{path}: this is not TOML: {message}")]
    NotToml {
        /// The file.
        path: String,
        /// What the parser said, with line and column.
        message: String,
    },
    /// Two settings that contradict each other.
    #[error("{key} = {value}: {why}")]
    Conflict {
        /// The setting to change.
        key: &'static str,
        /// Its value.
        value: String,
        /// The rule it breaks.
        why: String,
    },
    /// A preset that does not exist.
    #[error("there is no preset `{name}`{}; known: {known}", hint(.nearest.as_ref()))]
    UnknownPreset {
        /// The name that came.
        name: String,
        /// The most similar known name.
        nearest: Option<String>,
        /// All known names.
        known: String,
    },
    /// The network's options contradict each other.
    #[error(transparent)]
    Network(#[from] ddpm_nn::config::ConfigError),
    /// The optimiser's settings contradict each other.
    #[error(transparent)]
    Optimiser(#[from] crate::optimiser::OptimiserError),
}

fn hint(nearest: Option<&String>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}
