//! `ddpm config`: every setting of a preset, commented.

use anyhow::Result;
use ddpm_train::{presets, settings::Layers};

use crate::{args::ConfigArgs, failure::Explain, output};

pub(super) fn run(args: &ConfigArgs) -> Result<()> {
    let preset = presets::find(&args.preset).at("--preset")?;
    let mut layers = Layers::new();
    if let Some(path) = &args.config {
        let text = read_settings(path)?;
        layers.file(&text, &path.display().to_string()).at(path.display())?;
    }
    for set in &args.set {
        layers.set(set).at("--set")?;
    }
    let settings = layers.over(&preset.settings()).at("these settings together")?;
    output::print(&settings.to_toml_commented())?;
    Ok(())
}

/// The text of a settings file.
pub(super) fn read_settings(path: &std::path::Path) -> Result<String> {
    std::fs::read_to_string(path).at(path.display()).next("ddpm config --preset digits prints such a file")
}
