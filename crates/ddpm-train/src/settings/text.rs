//! `config.toml`: every setting with its meaning.

use std::fmt::Write as _;

use toml::Value;

use super::{SECTIONS, Settings, keys};

impl Settings {
    /// Every setting with its value, its meaning and what is allowed, as TOML that reads back to the same settings.
    pub fn to_toml_commented(&self) -> String {
        self.write(|_| true, true)
    }

    /// The settings that determine the numbers of a run, without comments: what belongs in a checkpoint. Left out is
    /// what changes no bit of it: names, paths, caches, micro-batches, and when something is saved, logged or shown.
    pub fn to_toml_of_numbers(&self) -> String {
        self.write(determines_numbers, false)
    }

    fn write(&self, wanted: impl Fn(&str) -> bool, comments: bool) -> String {
        let (keys, table) = (keys(), self.table());
        let mut out = String::new();
        for (section, about) in SECTIONS {
            let mut lines = String::new();
            for key in keys.iter().filter(|key| key.section() == *section && wanted(&key.name)) {
                let name = &key.name[section.len() + 1..];
                let Some(value) = table.get(*section).and_then(|section| section.get(name)) else {
                    continue;
                };
                if comments {
                    let _ = writeln!(lines, "# {} ({})", key.doc, key.allowed);
                }
                let _ = writeln!(lines, "{name} = {}", written(value));
                if comments {
                    lines.push('\n');
                }
            }
            if lines.is_empty() {
                continue;
            }
            if comments {
                let _ = writeln!(out, "# {about}");
            }
            let _ = writeln!(out, "[{section}]\n{}\n", lines.trim_end());
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        out
    }
}

/// Whether a setting changes any bit of the weights.
pub(super) fn determines_numbers(key: &str) -> bool {
    let silent = ["train.name", "train.micro_batch", "data.path", "data.cache_mb", "data.on_error"];
    let silent_sections = ["checkpoint.", "log.", "preview.", "eval."];
    !silent.contains(&key) && !silent_sections.iter().any(|section| key.starts_with(section))
}

/// A value as a person would write it.
fn written(value: &Value) -> String {
    match value {
        Value::Float(x) if *x != 0.0 && (x.abs() < 1e-3 || x.abs() >= 1e9) => format!("{x:e}"),
        other => other.to_string(),
    }
}
