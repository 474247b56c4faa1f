//! A model ready for use: whatever it was given as, its network, one set of its weights, and how it is sampled.

use std::{fs, path::Path};

use ddpm_nn::{UNet, UNetConfig, diffusers};

use crate::{
    checkpoint::{Checkpoint, Weights, entries},
    diffusion::scheduler_config::SchedulerConfig,
    error::Error,
    run::{DiffusersFolder, Model, RunError},
    settings::Settings,
};

/// The longest text of a configuration that is read, bytes.
const MAX_TEXT: u64 = 16 << 20;

/// A trained model in memory.
#[derive(Debug)]
#[non_exhaustive]
pub struct Trained {
    /// The network.
    pub unet: UNet,
    /// Its parameters, flat, in the order of its layout.
    pub parameters: Vec<f32>,
    /// Its noise schedule and how a sampler is to treat it.
    pub scheduler: SchedulerConfig,
    /// Names of the classes, empty where there are none or they have no names.
    pub classes: Vec<String>,
    /// The label that stands for no class, where the network has one and it is known.
    pub null_class: Option<usize>,
    /// BLAKE3 of the checkpoint, or of the weights' file: names the model in what is made with it.
    pub hash: String,
    /// Steps it was trained for, where that is known.
    pub step: Option<u64>,
    /// What it was trained with, where that is known.
    pub settings: Option<Settings>,
    /// Lines that people should read: what was passed over, what was assumed.
    pub notes: Vec<String>,
}

/// What a model is, without its weights.
#[derive(Debug)]
#[non_exhaustive]
pub struct Description {
    /// The network's options.
    pub config: UNetConfig,
    /// See [`Trained::scheduler`].
    pub scheduler: SchedulerConfig,
    /// See [`Trained::classes`].
    pub classes: Vec<String>,
    /// See [`Trained::null_class`].
    pub null_class: Option<usize>,
    /// See [`Trained::settings`].
    pub settings: Option<Settings>,
    /// See [`Trained::notes`].
    pub notes: Vec<String>,
}

impl Trained {
    /// Loads a run's newest sound checkpoint, a checkpoint, or a diffusers folder.
    ///
    /// # Errors
    /// What [`Model::find`] says of the path; damaged or contradictory files.
    pub fn load(path: &Path, which: Weights) -> Result<Self, Error> {
        Self::of(&Model::find(path)?, which)
    }

    /// Loads a model that has been found.
    ///
    /// # Errors
    /// Damaged or contradictory files.
    pub fn of(model: &Model, which: Weights) -> Result<Self, Error> {
        let Description { config, scheduler, classes, null_class, settings, mut notes } = Description::of(model)?;
        let unet = UNet::new(&config)?;
        let (parameters, hash, step) = match model {
            Model::Checkpoint { checkpoint, .. } => {
                if !checkpoint.holds(which) {
                    return Err(RunError::NoEarlyWeights { path: checkpoint.folder().to_owned() }.into());
                }
                let mut parameters = vec![0.0; unet.layout().len()];
                checkpoint.read_weights(which, &entries(unet.layout()), &mut parameters)?;
                (parameters, checkpoint.hash().to_owned(), Some(checkpoint.state().step))
            }
            Model::Diffusers(folder) => {
                if which == Weights::Early {
                    return Err(RunError::NoEarlyWeights { path: folder.weights.clone() }.into());
                }
                let bytes = fs::read(&folder.weights).map_err(|e| io("read", &folder.weights, e))?;
                if which == Weights::Raw {
                    notes.push("this model has one set of weights, used as raw and as ema".to_owned());
                }
                let parameters = diffusers::read(unet.layout(), &bytes)?;
                (parameters, blake3::hash(&bytes).to_hex().to_string(), None)
            }
        };
        Ok(Self { unet, parameters, scheduler, classes, null_class, hash, step, settings, notes })
    }

    /// Why another model cannot be what guidance leads away from: it has to say the same of the same x_t, if less well.
    pub fn unlike(&self, weaker: &Self) -> Option<&'static str> {
        let (own, theirs) = (&self.scheduler.options, &weaker.scheduler.options);
        let shape = |model: &Self| {
            let config = model.unet.config();
            (config.in_channels, config.out_channels, config.num_class_embeds)
        };
        [
            (shape(self) != shape(weaker), "its channels or classes are others"),
            (own.prediction != theirs.prediction, "it predicts something else"),
            (own.self_conditioning != theirs.self_conditioning, "only one of the two is shown what it saw before"),
            (self.scheduler.schedule != weaker.scheduler.schedule, "its noise schedule is another"),
        ]
        .into_iter()
        .find_map(|(differs, why)| differs.then_some(why))
    }

    /// Height, width and channels of its images; `None` where a diffusers folder does not say the size.
    pub fn image(&self) -> Option<[usize; 3]> {
        let config = self.unet.config();
        let size = config.sample_size?;
        Some([size.height(), size.width(), self.channels()])
    }

    /// Channels of its images: half of the network's input with self-conditioning.
    pub fn channels(&self) -> usize {
        let shown = if self.scheduler.options.self_conditioning { 2 } else { 1 };
        self.unet.config().in_channels / shown
    }

    /// Channels that the network should say: twice an image's where it learns the variance.
    pub fn said_channels(&self) -> usize {
        let said = if self.scheduler.options.variance.is_learned() { 2 } else { 1 };
        self.channels() * said
    }
}

impl Description {
    /// Reads what a model says about itself.
    ///
    /// # Errors
    /// Damaged or contradictory files.
    pub fn of(model: &Model) -> Result<Self, Error> {
        match model {
            Model::Checkpoint { checkpoint, report, .. } => {
                Self::of_checkpoint(checkpoint, report.iter().cloned().collect())
            }
            Model::Diffusers(folder) => Self::of_diffusers(folder),
        }
    }

    fn of_checkpoint(checkpoint: &Checkpoint, notes: Vec<String>) -> Result<Self, Error> {
        let name = checkpoint.folder().join("config.toml").display().to_string();
        let settings = Settings::from_toml(checkpoint.config(), &name)?;
        let classes = checkpoint.state().classes.clone();
        let count = (!classes.is_empty()).then_some(classes.len());
        let (size, channels) = (settings.data.size, settings.data.channels);
        let config = settings.unet(channels, size.height(), size.width(), count).map_err(ddpm_nn::NnError::from)?;
        let null_class = count.and_then(|count| settings.null_class(count));
        let scheduler = SchedulerConfig::from(&settings);
        Ok(Self { config, scheduler, classes, null_class, settings: Some(settings), notes })
    }

    fn of_diffusers(folder: &DiffusersFolder) -> Result<Self, Error> {
        let config = UNetConfig::from_json(&text(&folder.config)?).map_err(ddpm_nn::NnError::from)?;
        let mut notes = Vec::new();
        let scheduler = if let Some(path) = &folder.scheduler {
            SchedulerConfig::parse(&text(path)?)?
        } else {
            notes.push("no scheduler_config.json: a linear schedule of 1000 steps is assumed".to_owned());
            SchedulerConfig::default()
        };
        let classes: Vec<String> = match &folder.class_names {
            Some(path) => serde_json::from_str(&text(path)?).map_err(|_| {
                let reason = "class_names.json is no list of names";
                RunError::NotAModel { path: path.clone(), reason }
            })?,
            None => Vec::new(),
        };
        // A row more than names is that of no class.
        let one_more = !classes.is_empty() && config.num_class_embeds == Some(classes.len() + 1);
        let null_class = one_more.then_some(classes.len());
        Ok(Self { config, scheduler, classes, null_class, settings: None, notes })
    }
}

fn text(path: &Path) -> Result<String, Error> {
    let length = fs::metadata(path).map_err(|e| io("read", path, e))?.len();
    if length > MAX_TEXT {
        let reason = "its configuration is longer than 16 MiB";
        return Err(RunError::NotAModel { path: path.to_owned(), reason }.into());
    }
    fs::read_to_string(path).map_err(|e| io("read", path, e))
}

fn io(operation: &'static str, path: &Path, source: std::io::Error) -> Error {
    RunError::Io { operation, path: path.to_owned(), source }.into()
}
