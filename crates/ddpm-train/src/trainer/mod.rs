//! The trainer: from batches to weights, one deterministic step at a time.
//!
//! | file | idea |
//! |---|---|
//! | `mod` | what is trained: a network, its numbers and their averages |
//! | `step` | one step: noise, loss, backward, clip, update |
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

mod heldout;
mod observer;
mod preview;
mod scores;
mod session;
mod state;
mod step;

use std::sync::Arc;

use ddpm_kernels::Backend;
use ddpm_kernels::loss::LossKind;
use ddpm_nn::{Parameters, UNet};
use ddpm_tensor::Tensor;
use ddpm_tensor::random::Address;

use crate::checkpoint::Weights;
use crate::data::{DataSet, Loader, ReadAhead};
use crate::diffusion::forward::noising_table;
use crate::diffusion::objective::min_snr_weight;
use crate::diffusion::{Prediction, Schedule};
use crate::error::Error;
use crate::settings::Settings;

pub use observer::{Heldout, Observer, Preview, Quiet, Scores, StepReport};
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
    /// (√ᾱ_t, √(1−ᾱ_t)) for every t.
    noising: Vec<(f32, f32)>,
    /// The same for the target, where it is neither ε nor x_0.
    target: Vec<(f32, f32)>,
    loss: LossKind,
    /// What an image counts for at every t.
    weighting: Vec<f32>,
    batches: ReadAhead,
    parameters: Parameters<B>,
    grads: Parameters<B>,
    m: Parameters<B>,
    v: Parameters<B>,
    ema: Parameters<B>,
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
    /// 1 for each image: none counts more than another.
    weights: Vec<f32>,
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
        let prediction = settings.diffusion.prediction;
        let target = match prediction {
            Prediction::V => {
                schedule.alpha_bar().iter().map(|&alpha_bar| prediction.target(alpha_bar).to_f32()).collect()
            }
            Prediction::Eps | Prediction::X0 => Vec::new(),
        };

        let parameters = Parameters::from_host(&backend, unet.layout(), &unet.initial(settings.train.seed))?;
        let ema = parameters.duplicate(&backend)?;
        let zeros = || Parameters::zeros(&backend, unet.layout());
        let (grads, m, v) = (zeros()?, zeros()?, zeros()?);
        let gamma = settings.diffusion.min_snr_gamma;
        let weight = |&alpha_bar: &f64| min_snr_weight(prediction, alpha_bar, gamma) as f32;
        let host = Host {
            images: vec![0.0; batch * data.image_len()],
            labels: vec![0; batch],
            classes: Vec::with_capacity(batch),
            time_steps: Vec::with_capacity(batch),
            weights: vec![1.0; batch.max(settings.images_at_once())],
        };
        Ok(Self {
            noising: noising_table(&schedule),
            target,
            loss: settings.objective().kind(),
            weighting: schedule.alpha_bar().iter().map(weight).collect(),
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

    /// The parameters, or their average.
    pub fn parameters(&self, which: Weights) -> &Parameters<B> {
        match which {
            Weights::Raw => &self.parameters,
            Weights::Ema => &self.ema,
        }
    }

    /// x_t of images x_0 at time steps t, with the ε of an address, and what the network is to predict of it.
    fn noised(&self, x_0: Tensor<B>, t: &[usize], address: Address) -> Result<(Tensor<B>, Tensor<B>), Error> {
        let factors = |table: &[(f32, f32)]| t.iter().map(|&t| table[t]).collect::<Vec<_>>();
        let (x_t, eps) = self.backend.noise(x_0.view(), &factors(&self.noising), address)?;
        let target = match self.settings.diffusion.prediction {
            Prediction::Eps => eps,
            Prediction::X0 => x_0,
            // v is a noising too, of the same ε.
            Prediction::V => self.backend.noise(x_0.view(), &factors(&self.target), address)?.0,
        };
        Ok((x_t, target))
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
