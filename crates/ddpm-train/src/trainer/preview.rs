//! Images of the weights as they are.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use ddpm_kernels::{Backend, KernelError};
use ddpm_nn::{Mode, NnError};
use ddpm_tensor::{Shape, TensorError};
use ndarray::{Array4, Axis, Ix4};

use super::{Preview, Trainer};
use crate::checkpoint::Weights;
use crate::diffusion::DiffusionError;
use crate::error::Error;
use crate::samplers::{self, Asked, Away, Guidance, Images, Plan, SamplerOptions, guided_output};

/// Forward passes that a training step is worth, roughly: itself and a backward pass twice as long.
pub const FORWARDS_PER_STEP: f64 = 3.0;
/// Pictures that take no longer are always made, seconds: how long so little takes is chance.
const ALWAYS: f64 = 1.0;

/// Whether pictures that would take `wanted` seconds are not worth it after `trained` seconds of training.
pub fn takes_too_long(wanted: f64, trained: f64) -> bool {
    wanted > trained.max(ALWAYS)
}

/// Why sampling ended early.
pub(super) enum Ended {
    Stopped,
    Failed(Error),
}

impl From<KernelError> for Ended {
    fn from(error: KernelError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<NnError> for Ended {
    fn from(error: NnError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<TensorError> for Ended {
    fn from(error: TensorError) -> Self {
        Self::Failed(error.into())
    }
}

impl<B: Backend<Elem = f32>> Trainer<B> {
    /// Images by the sampler of the settings, as many and in as many steps as they say, of both sets of weights, from the latents
    /// of the run's seed: always the same ones, so that one sees them change. Image i is of class i mod classes.
    ///
    /// Nothing if `stop` is set meanwhile.
    ///
    /// # Errors
    /// Those of settings and device.
    pub fn preview(&self, stop: &AtomicBool) -> Result<Option<Preview>, Error> {
        let count = self.settings.preview.count;
        let [raw, ema] = match [Weights::Raw, Weights::Ema].map(|which| self.sample(which, 0..count, stop)) {
            [Ok(raw), Ok(ema)] => [raw, ema],
            [Err(Ended::Failed(error)), _] | [_, Err(Ended::Failed(error))] => return Err(error),
            _ => return Ok(None),
        };
        Ok(Some(Preview { step: self.step, raw, ema }))
    }

    /// The steps of previews, and of the final pictures.
    ///
    /// # Errors
    /// Settings that do not fit each other.
    pub fn preview_plan(&self) -> Result<Plan, DiffusionError> {
        let sampler = samplers::find(&self.settings.preview.sampler)?;
        (sampler.plan)(&self.schedule, &SamplerOptions::from(&self.settings))
    }

    /// The guidance of previews of the averaged weights, and of the final pictures; others are not guided away from earlier weights.
    pub fn preview_guidance(&self) -> Option<Guidance> {
        let preview = &self.settings.preview;
        let null = self.data().classes().and_then(|classes| self.settings.null_class(classes.len()));
        let guidance = if preview.autoguidance == 1.0 {
            Guidance::new(Away::NoClass(null?), preview.guidance)
        } else {
            // until then there is nothing weaker
            self.early.as_ref()?;
            Guidance::new(Away::Weaker, preview.autoguidance)
        };
        let interval = (preview.guidance_from as f64, f64::INFINITY);
        Some(Guidance { interval, variance: self.criterion.learns_variance, ..guidance })
    }

    /// Images of these indices by the sampler of previews.
    pub(super) fn sample(&self, which: Weights, of: Range<usize>, stop: &AtomicBool) -> Result<Array4<f32>, Ended> {
        let plan = self.preview_plan().map_err(|error| Ended::Failed(error.into()))?;
        let [height, width, channels] = self.image();
        let count = of.len();
        let at_once = self.settings.images_at_once().clamp(1, count.max(1));
        let classes = self.data().classes().map(<[String]>::len);
        let guidance = self.preview_guidance();
        let guidance = guidance.filter(|guidance| guidance.away != Away::Weaker || which == Weights::Ema);
        let (own, weaker) = (self.parameters(which), self.parameters(Weights::Early));
        let mut all = Array4::zeros((count, height, width, channels));
        for first in (0..count).step_by(at_once) {
            let n = at_once.min(count - first);
            let images = Images { seed: self.settings.train.seed, first: (of.start + first) as u64 };
            let x = samplers::latents(&self.backend, Shape::from([n, height, width, channels]), images)?;
            let wanted: Option<Vec<usize>> =
                classes.map(|classes| (first..first + n).map(|i| (of.start + i) % classes).collect());
            let x = plan.run(
                &self.backend,
                x,
                images,
                false,
                |x, t| {
                    guided_output(
                        guidance.as_ref(),
                        &self.backend,
                        x,
                        t,
                        wanted.as_deref(),
                        |asked, x, times, classes| {
                            let parameters = if asked == Asked::Model { own } else { weaker };
                            let pass =
                                self.unet.forward(&self.backend, parameters, x.view(), times, classes, Mode::Infer);
                            Ok::<_, Ended>(pass?.0)
                        },
                    )
                },
                |_| if stop.load(Ordering::Relaxed) { Err(Ended::Stopped) } else { Ok(()) },
            )?;
            let x = x.to_array(&self.backend)?;
            if let Ok(x) = x.into_dimensionality::<Ix4>() {
                all.slice_axis_mut(Axis(0), (first..first + n).into()).assign(&x);
            }
        }
        Ok(all)
    }
}
