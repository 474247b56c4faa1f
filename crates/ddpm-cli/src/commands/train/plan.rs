//! What is to be done: settings, data and place, resolved and checked before anything is built or written.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Result;
use ddpm_nn::config::SampleSize;
use ddpm_train::{
    data::{self, DataOptions, DataSet},
    memory,
    presets::{self, Pictures},
    run::RunDir,
    settings::{Layers, Settings},
};

use crate::{
    args::TrainArgs,
    commands::config::read_settings,
    failure::{Explain, Failure},
};

/// Where runs are kept.
const RUNS: &str = "runs";
/// The name of data that is part of the program starts so.
const BUNDLED: &str = "bundled:";

/// Everything that training needs to know.
pub(super) struct Plan {
    /// Every setting, with the data's size and channels.
    pub(super) settings: Settings,
    /// The data, decoded.
    pub(super) data: Arc<DataSet>,
    /// Where to write.
    pub(super) run: Place,
    /// What people should hear about what was chosen for them.
    pub(super) notes: Vec<String>,
}

/// Where a run is written.
pub(super) enum Place {
    /// The next free folder in one for runs.
    Next(PathBuf),
    /// A given folder, which holds no run yet.
    New(PathBuf),
    /// A run that goes on.
    Resumed(RunDir),
}

/// Resolves what was typed.
pub(super) fn plan(args: &TrainArgs) -> Result<Plan> {
    let layers = layers(args)?;
    let mut plan = if args.resume { resumed(args, &layers)? } else { new(args, &layers)? };
    if let Some(stop) = args.stop_at
        && stop == 0
    {
        return Err(Failure::usage("--stop-at 0 is not allowed; allowed: 1 and more").into());
    }
    // Samples and exports of a checkpoint need what the data said.
    let (height, width) = plan.data.size();
    plan.settings.data.size = SampleSize::new(height, width);
    plan.settings.data.channels = plan.data.channels();
    Ok(plan)
}

fn layers(args: &TrainArgs) -> Result<Layers> {
    let file = match &args.config {
        Some(path) => Some((read_settings(path)?, path.display().to_string())),
        None => None,
    };
    let file = file.as_ref().map(|(text, path)| (text.as_str(), path.as_str()));
    args.layers(file).at(file.map_or("the command line", |(_, path)| path))
}

/// A new run: the preset's settings, or those that fit the user's pictures, or the digits'.
fn new(args: &TrainArgs, layers: &Layers) -> Result<Plan> {
    let run = match &args.out {
        Some(root) => {
            if RunDir::open(root).is_ok() {
                return Err(ddpm_train::run::RunError::Exists { path: root.clone() }).at(root.display());
            }
            Place::New(root.clone())
        }
        None => Place::Next(PathBuf::from(RUNS)),
    };
    let said = layers.get("data.path").and_then(|path| path.as_str()).unwrap_or_default();
    match &args.preset {
        None if !said.is_empty() && !said.starts_with(BUNDLED) => own(&absolute(said), layers, run),
        name => {
            let bundled = said.strip_prefix(BUNDLED);
            let name = name.as_deref().or(bundled).unwrap_or("digits");
            let preset = presets::find(name).at("--preset")?;
            let mut settings = layers.over(&preset.settings()).at(format!("the settings of {name}"))?;
            if settings.data.path.is_empty() {
                let needs = preset.needs.unwrap_or("a folder of pictures");
                return Err(Failure::usage(format!("the preset {name} has no data of its own"))
                    .place("--data")
                    .next(format!("--data PATH: {needs}"))
                    .into());
            }
            settings.data.path = absolute(&settings.data.path);
            let data = open(&settings)?;
            Ok(Plan { settings, data, run, notes: Vec::new() })
        }
    }
}

/// A run on the user's pictures: the network follows from them.
fn own(path: &str, layers: &Layers, run: Place) -> Result<Plan> {
    // What is said about the data counts before the network is chosen, which may not fit the general settings.
    let mut data_only = Layers::new();
    for key in layers.keys().filter(|key| key.starts_with("data.") && *key != "data.size") {
        if let Some(value) = layers.get(key) {
            data_only.value(key, value.clone(), ddpm_train::settings::Origin::Set)?;
        }
    }
    let options = DataOptions::from_settings(&data_only.over(&Settings::default())?.data).at(path)?;
    let survey = data::survey(Path::new(path), &options).at(path)?;
    let wanted = layers.get("data.size").cloned().and_then(|size| size.try_into::<SampleSize>().ok());
    let wanted = wanted.filter(|size| size.height() > 0);
    let found = survey.common_size().unwrap_or_else(|| {
        let (height, width) = survey.least_size();
        (height.min(width), height.min(width))
    });
    let pictures = Pictures {
        name: name_of(path),
        size: wanted.map_or(found, |size| (size.height(), size.width())),
        channels: survey.channels(),
        count: survey.count(),
    };
    let base = presets::for_pictures(&pictures, wanted.is_some(), memory::available() / 4 * 3);
    let mut settings = layers.over(&base).at(path)?;
    path.clone_into(&mut settings.data.path);
    let mut notes = Vec::new();
    let size = settings.data.size;
    if wanted.is_none() && survey.common_size() != Some((size.height(), size.width())) {
        notes.push(format!(
            "pictures are brought to {}x{} (height x width): --set data.size=N for another size",
            size.height(),
            size.width()
        ));
    }
    if !layers.keys().any(|key| key.starts_with("network.")) {
        let channels = format!("{:?}", settings.network.block_out_channels);
        notes.push(format!(
            "the network was chosen for these pictures (channels {channels}): --preset or --set network.* for another"
        ));
    }
    // Opened anew: the size is part of how pictures are decoded.
    let data = open(&settings)?;
    Ok(Plan { settings, data, run, notes })
}

/// A run that goes on: everything is its own but what may change.
fn resumed(args: &TrainArgs, layers: &Layers) -> Result<Plan> {
    let run = match &args.out {
        Some(root) => RunDir::open(root).at(root.display())?,
        None => RunDir::newest(Path::new(RUNS)).at(RUNS)?,
    };
    let path = run.config().display().to_string();
    let before = Settings::from_toml(&run.read_config()?, &path).at(&path)?;
    let mut after = layers.over(&before).at(&path)?;
    if layers.says("data.path") {
        after.data.path = absolute(&after.data.path);
    }
    let mut refused = before.resume_with(&after).refused;
    if let Some(name) = args.preset.as_ref().filter(|name| **name != before.train.name) {
        // Whatever the preset would change is another run.
        let preset = presets::find(name).at("--preset")?.settings();
        refused.extend(before.resume_with(&preset).refused);
    }
    if !refused.is_empty() {
        let changes = refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return Err(Failure::usage(format!("a resumed run keeps its settings, but these differ: {changes}"))
            .place(run.root().display())
            .next("leave them out, or start a new run with another --out")
            .into());
    }
    let data = open(&after)?;
    Ok(Plan { settings: after, data, run: Place::Resumed(run), notes: Vec::new() })
}

/// Opens the data that the settings name.
fn open(settings: &Settings) -> Result<Arc<DataSet>> {
    let path = settings.data.path.as_str();
    let options = DataOptions::from_settings(&settings.data).at("data")?;
    Ok(Arc::new(data::open(Path::new(path), &options).at(path)?))
}

/// The path from the root, so that the run can be resumed from anywhere; names of bundled data stay.
fn absolute(path: &str) -> String {
    if path.starts_with(BUNDLED) {
        return path.to_owned();
    }
    std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| path.to_string_lossy().into_owned())
}

/// The name of a run on these data.
fn name_of(path: &str) -> String {
    let stem = Path::new(path).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let safe: String = stem.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    let safe = safe.trim_matches(['.', '-']).to_owned();
    if safe.is_empty() { "run".to_owned() } else { safe }
}
