//! Preset < file < `--set` and flags.

use toml::{Table, Value};

use super::{Key, Origin, Settings, SettingsError, keys};
use crate::diffusion::{Prediction, Weighting};

/// What was said above the preset, in the order in which it was said. Each value is checked when it is added.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    entries: Vec<(String, Value, Origin)>,
}

impl Layers {
    /// Nothing said yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the text of a TOML file; `path` is for messages.
    ///
    /// # Errors
    /// [`SettingsError::NotToml`], and those of [`Self::value`] for any of its keys.
    pub fn file(&mut self, text: &str, path: &str) -> Result<(), SettingsError> {
        let table: Table = text.parse().map_err(|e: toml::de::Error| SettingsError::NotToml {
            path: path.to_owned(),
            message: e.to_string().trim_end().to_owned(),
        })?;
        let origin = Origin::File(path.to_owned());
        for (section, value) in table {
            match value {
                Value::Table(section_table) => {
                    for (name, value) in section_table {
                        self.value(&format!("{section}.{name}"), value, origin.clone())?;
                    }
                }
                _ => return Err(unknown(&section, origin)),
            }
        }
        Ok(())
    }

    /// Adds the `section.name=value` of a `--set`.
    ///
    /// # Errors
    /// [`SettingsError::NotAnAssignment`], and those of [`Self::value`].
    pub fn set(&mut self, text: &str) -> Result<(), SettingsError> {
        let (key, value) =
            text.split_once('=').ok_or_else(|| SettingsError::NotAnAssignment { text: text.to_owned() })?;
        let key = find(key.trim(), &Origin::Set)?;
        let value = key.check(&key.parse(value), &Origin::Set)?;
        self.entries.push((key.name, value, Origin::Set));
        Ok(())
    }

    /// Adds one value.
    ///
    /// # Errors
    /// [`SettingsError::UnknownKey`], [`SettingsError::NotAllowed`].
    pub fn value(&mut self, key: &str, value: impl Into<Value>, origin: Origin) -> Result<(), SettingsError> {
        let key = find(key, &origin)?;
        let value = key.check(&value.into(), &origin)?;
        self.entries.push((key.name, value, origin));
        Ok(())
    }

    /// Whether anything was said about a key.
    pub fn says(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, ..)| name == key)
    }

    /// The last value said about a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().rev().find(|(name, ..)| name == key).map(|(_, value, _)| value)
    }

    /// The keys said, in the order in which they were said.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, ..)| name.as_str())
    }

    /// Lays what was said over `base` and checks that the whole fits together.
    ///
    /// # Errors
    /// Those of [`Settings::validate`].
    pub fn over(&self, base: &Settings) -> Result<Settings, SettingsError> {
        let mut table = base.table();
        for (key, value, _) in &self.entries {
            if let Some((section, name)) = key.split_once('.')
                && let Some(Value::Table(section)) = table.get_mut(section)
            {
                section.insert(name.to_owned(), value.clone());
            }
        }
        let settings: Settings = Value::Table(table).try_into().map_err(|e: toml::de::Error| {
            // Unreachable while every `Allowed` agrees with its field's type, which a test holds.
            SettingsError::NotToml { path: "settings".to_owned(), message: e.to_string() }
        })?;
        settings.validate()?;
        Ok(settings)
    }
}

fn find(name: &str, origin: &Origin) -> Result<Key, SettingsError> {
    keys().into_iter().find(|key| key.name == name).ok_or_else(|| unknown(name, origin.clone()))
}

/// The answer to a key that does not exist, with the most similar one that does.
fn unknown(name: &str, origin: Origin) -> SettingsError {
    let wanted = name.to_lowercase();
    let mut best = (0.7, None);
    for key in keys() {
        // A name without its section, or under another one, is as common a slip as a misspelling.
        let (section, bare) = key.name.split_once('.').unwrap_or(("", &key.name));
        let (wanted_section, wanted_bare) = wanted.split_once('.').unwrap_or((section, &wanted));
        let whole = strsim::jaro_winkler(&wanted, &key.name);
        let parts =
            0.75 * strsim::jaro_winkler(wanted_bare, bare) + 0.25 * strsim::jaro_winkler(wanted_section, section);
        // Of equals the first: `steps` is a training's.
        if whole.max(parts) > best.0 {
            best = (whole.max(parts), Some(key.name));
        }
    }
    let nearest = best.1;
    SettingsError::UnknownKey { key: name.to_owned(), nearest, origin }
}

impl Settings {
    /// All settings as TOML.
    pub(super) fn table(&self) -> Table {
        // A struct of structs of numbers, names and lists always has one.
        Table::try_from(self).unwrap_or_default()
    }

    /// Reads the text of a `config.toml`. Settings that it does not name have the general defaults.
    ///
    /// # Errors
    /// Those of [`Layers::file`] and [`Layers::over`].
    pub fn from_toml(text: &str, path: &str) -> Result<Self, SettingsError> {
        let mut layers = Layers::new();
        layers.file(text, path)?;
        layers.over(&Self::default())
    }

    /// The value of one key, as TOML.
    pub fn get(&self, key: &str) -> Option<Value> {
        let (section, name) = key.split_once('.')?;
        self.table().get(section)?.get(name).cloned()
    }

    /// Whether settings that depend on each other fit.
    ///
    /// # Errors
    /// [`SettingsError::Conflict`] names the setting to change; [`SettingsError::Network`] a network's option,
    /// [`SettingsError::Optimiser`] the optimiser's.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let conflict = |key, value: &dyn std::fmt::Display, why: String| {
            Err(SettingsError::Conflict { key, value: value.to_string(), why })
        };
        let (train, diffusion) = (&self.train, &self.diffusion);
        if train.micro_batch > train.batch {
            let why = format!("must be at most train.batch = {}", train.batch);
            return conflict("train.micro_batch", &train.micro_batch, why);
        }
        if diffusion.beta_start > diffusion.beta_end {
            let why = format!("must be at most diffusion.beta_end = {}", diffusion.beta_end);
            return conflict("diffusion.beta_start", &diffusion.beta_start, why);
        }
        if diffusion.zero_terminal_snr && diffusion.prediction == Prediction::Eps {
            let why = "the prediction `eps` says nothing of the picture in pure noise; v, x0 or mean do".to_owned();
            return conflict("diffusion.zero_terminal_snr", &true, why);
        }
        let wants = if diffusion.min_snr_gamma > 0.0 { Weighting::MinSnr } else { Weighting::Uniform };
        let weighting = diffusion.weighting;
        if (weighting == Weighting::MinSnr || wants == Weighting::MinSnr)
            && ![wants, Weighting::Uniform].contains(&weighting)
        {
            let why = format!("does not go with diffusion.min_snr_gamma = {}", diffusion.min_snr_gamma);
            return conflict("diffusion.weighting", &weighting, why);
        }
        if self.data.class_dropout > 0.0 && !self.data.classes {
            let why = "there are no classes to drop; data.classes=true learns them".to_owned();
            return conflict("data.class_dropout", &self.data.class_dropout, why);
        }
        let preview = &self.preview;
        if preview.autoguidance != 1.0 && self.ema.early == 0 {
            let why = "there are no weaker weights to be led away from; ema.early=STEP keeps some".to_owned();
            return conflict("preview.autoguidance", &preview.autoguidance, why);
        }
        if preview.autoguidance != 1.0 && preview.guidance != 1.0 {
            let why = format!("pictures are guided one way only, and preview.guidance = {}", preview.guidance);
            return conflict("preview.autoguidance", &preview.autoguidance, why);
        }
        self.optimiser.check()?;
        let size = self.data.size;
        if size.height() > 0 {
            self.unet(self.data.channels.max(1), size.height(), size.width(), None).map(|_| ())?;
        } else {
            // The size is not known yet; one that fits shows whether the rest does.
            let side = 1 << self.network.block_out_channels.len().min(16);
            self.unet(self.data.channels.max(1), side, side, None).map(|_| ())?;
        }
        Ok(())
    }
}
