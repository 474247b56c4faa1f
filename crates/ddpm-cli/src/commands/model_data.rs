//! The data that a model is held against: what it was trained on, or what is named, in the model's form.

use std::path::Path;

use anyhow::Result;
use ddpm_train::{
    data::{self, DataOptions, DataSet},
    model::Trained,
    run::Model,
    settings::{DataSettings, Settings},
};

use crate::failure::{Explain, Failure};

/// Opens the data of a model for pictures `[H, W, C]`: those at `named`, or the run's.
pub(super) fn open(place: &Path, model: &Trained, image: [usize; 3], named: Option<&Path>) -> Result<DataSet> {
    let settings = settings(place, model, image, named)?;
    let options = DataOptions::from_settings(&settings).at("data")?;
    let data = data::open(Path::new(&settings.path), &options).at(&settings.path)?;
    let [height, width, channels] = image;
    if (data.size(), data.channels()) != ((height, width), channels) {
        let (h, w) = data.size();
        let what = format!(
            "the data are {h}x{w} with {} channels, the model's pictures {height}x{width} with {channels}",
            data.channels()
        );
        return Err(Failure::new(what).place(&settings.path).next("--data names what it was trained on").into());
    }
    Ok(data)
}

fn settings(place: &Path, model: &Trained, image: [usize; 3], named: Option<&Path>) -> Result<DataSettings> {
    let [height, width, channels] = image;
    let trained = match &Model::find(place).at(place.display())? {
        Model::Checkpoint { run: Some(run), .. } => {
            let place = run.config();
            Some(Settings::from_toml(&run.read_config()?, &place.display().to_string())?.data)
        }
        _ => model.settings.as_ref().map(|settings| settings.data.clone()),
    };
    let size = ddpm_nn::config::SampleSize::new(height, width);
    let mut settings = trained.unwrap_or(DataSettings { holdout: 0.0, ..DataSettings::default() });
    (settings.size, settings.channels) = (size, channels);
    if let Some(path) = named {
        settings.path = path.display().to_string();
    }
    if settings.path.is_empty() {
        return Err(Failure::usage("the model does not say what it was trained on")
            .place(place.display())
            .next("--data PATH")
            .into());
    }
    Ok(settings)
}
