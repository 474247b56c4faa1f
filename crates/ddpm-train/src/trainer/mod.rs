//! The trainer: from batches to weights, one deterministic step at a time.
//!
//! | file | idea |
//! |---|---|
//! | `mod` | what is trained: a network, its numbers and their averages |
//! | `step` | one step: noise, loss, backward, clip, update |
//! | `noising` | what the network is shown and what it is to say |
//! | `criterion` | what is minimised, and its gradient |
//! | `log_variance` | the loss's variance at each time step, where it is learned |
//! | `heldout` | the loss on held-out images, always with the same t and ε |
//! | `preview` | images of the weights as they are |
//! | `scores` | how good its images are, by another network's features |
//! | `state` | to a checkpoint and back |
//! | `session` | a run in its directory: when to save, log, look, stop |
//! | `observer` | what a program may hear of all this |
//!
//! Every random number has an address: image i of the batch of step s takes its t from
//! [`TimeStep`](ddpm_tensor::random::Purpose::TimeStep) and its ε from [`Noise`](ddpm_tensor::random::Purpose::Noise) at step s
//! and sample i. So neither micro-batches nor a stop between any two steps change a bit.

mod criterion;
mod heldout;
mod log_variance;
mod noising;
mod observer;
mod preview;
mod scores;
mod session;
mod state;
mod step;

use std::sync::Arc;

use ddpm_kernels::Backend;
use ddpm_nn::{Parameters, UNet};

use crate::checkpoint::Weights;
use crate::data::{DataSet, Loader, ReadAhead};
use crate::diffusion::{LossHistory, Schedule, TimeSteps};
use crate::error::Error;
use crate::settings::Settings;

use criterion::Criterion;
use log_variance::LogVariances;
pub use observer::{Heldout, Observer, Preview, Quiet, Scores, StepReport};
pub use preview::{FORWARDS_PER_STEP, takes_too_long};
pub use session::{Outcome, Session};

/// Batches that are read ahead of the one in use.
const READ_AHEAD: usize = 2;

/// What made a run's numbers, as its checkpoints name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// Instruction set (`portable`, `avx2`, …) or kind of device.
    pub isa: String,
    /// Precision (`strict`, `f32`, …).
    pub precision: String,
}

/// A network in training: its parameters, their gradients, both moments and the moving average, and the number of steps
/// that they have behind them.
#[derive(Debug)]
pub struct Trainer<B: Backend<Elem = f32>> {
    backend: B,
    engine: Engine,
    settings: Settings,
    unet: UNet,
    schedule: Schedule,
    criterion: Criterion,
    /// The losses from which time steps are drawn, where they are.
    history: Option<LossHistory>,
    log_variances: Option<LogVariances<B>>,
    batches: ReadAhead,
    parameters: Parameters<B>,
    grads: Parameters<B>,
    m: Parameters<B>,
    v: Parameters<B>,
    ema: Parameters<B>,
    /// The average after the step `ema.early`, from then on.
    early: Option<Parameters<B>>,
    step: u64,
    host: Host,
}

/// What a step needs on the host, kept between steps.
#[derive(Debug)]
struct Host {
    images: Vec<f32>,
    labels: Vec<u32>,
    classes: Vec<usize>,
    time_steps: Vec<usize>,
    /// What each image's loss counts for, by the way its time step was drawn.
    drawn_with: Vec<f64>,
    /// 1 for each image: none counts more than another.
    weights: Vec<f32>,
}

/// What the last step was made of, for those who want to follow it elsewhere.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LastBatch<'a> {
    /// The images x_0 `[N, H, W, C]`, flat; image i's ε is at sample i of the step's [`Noise`](ddpm_tensor::random::Purpose::Noise).
    pub images: &'a [f32],
    /// Their time steps.
    pub time_steps: &'a [usize],
    /// Whether the network was shown what it saw before.
    pub looks_back: bool,
}

impl<B: Backend<Elem = f32>> Trainer<B> {
    /// A network for the data, with the paper's initial parameters, before its first step.
    ///
    /// # Errors
    /// If settings and data do not fit each other or the device has not enough memory.
    pub fn new(backend: B, engine: Engine, settings: Settings, data: &Arc<DataSet>) -> Result<Self, Error> {
        settings.validate()?;
        let (height, width) = data.size();
        let classes = data.classes().map(<[String]>::len);
        let config = settings.unet(data.channels(), height, width, classes).map_err(ddpm_nn::NnError::from)?;
        let unet = UNet::new(&config)?;
        let schedule = settings.schedule().build()?;
        let batch = settings.train.batch;
        let batches = ReadAhead::new(Loader::new(Arc::clone(data), settings.train.seed), batch, READ_AHEAD)?;
        let criterion = Criterion::new(&settings, &schedule)?;
        let diffusion = &settings.diffusion;
        let total = schedule.time_steps();
        let history = (diffusion.time_steps == TimeSteps::LossSecondMoment).then(|| LossHistory::new(total));
        let log_variances = if diffusion.learn_log_variance {
            Some(LogVariances::new(&backend, total, diffusion.log_variance_init)?)
        } else {
            None
        };

        let parameters = Parameters::from_host(&backend, unet.layout(), &unet.initial(settings.train.seed))?;
        let ema = parameters.duplicate(&backend)?;
        let zeros = || Parameters::zeros(&backend, unet.layout());
        let (grads, m, v) = (zeros()?, zeros()?, zeros()?);
        let host = Host {
            images: vec![0.0; batch * data.image_len()],
            labels: vec![0; batch],
            classes: Vec::with_capacity(batch),
            time_steps: Vec::with_capacity(batch),
            drawn_with: vec![1.0; batch],
            weights: vec![1.0; batch.max(settings.images_at_once())],
        };
        Ok(Self {
            criterion,
            history,
            log_variances,
            backend,
            engine,
            settings,
            unet,
            schedule,
            batches,
            parameters,
            grads,
            m,
            v,
            ema,
            early: None,
            step: 0,
            host,
        })
    }

    /// Starts from other parameters than the paper's: another model's, for fine-tuning. They are flat, in the order of the
    /// network's layout; the average starts from `ema`.
    ///
    /// # Errors
    /// If they are too few or too many.
    pub fn init_from(&mut self, raw: &[f32], ema: &[f32]) -> Result<(), Error> {
        self.parameters.upload(&self.backend, raw)?;
        self.ema.upload(&self.backend, ema)?;
        Ok(())
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// What the last step was made of; nothing before the first.
    pub fn last_batch(&self) -> LastBatch<'_> {
        let Host { images, time_steps, .. } = &self.host;
        let looks_back = self.step > 0 && self.looks_back(self.step - 1);
        LastBatch { images, time_steps, looks_back }
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The network.
    pub fn unet(&self) -> &UNet {
        &self.unet
    }

    /// The noise schedule.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The data.
    pub fn data(&self) -> &Arc<DataSet> {
        self.batches.loader().data()
    }

    /// The device.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The parameters, their average, or that average as it was after the step `ema.early` (as it is, before it).
    pub fn parameters(&self, which: Weights) -> &Parameters<B> {
        match which {
            Weights::Raw => &self.parameters,
            Weights::Ema => &self.ema,
            Weights::Early => self.early.as_ref().unwrap_or(&self.ema),
        }
    }

    /// Whether the network learns classes.
    fn conditional(&self) -> bool {
        self.data().classes().is_some()
    }

    /// `[H, W, C]` of an image.
    fn image(&self) -> [usize; 3] {
        let (height, width) = self.data().size();
        [height, width, self.data().channels()]
    }
}
