//! Drawing images with a model, batch by batch: what `sample` does, and `train` at its end.

use anyhow::{Result, ensure};
use ddpm_kernels::{Backend, KernelError};
use ddpm_nn::{Mode, NnError, Parameters, UNet};
use ddpm_tensor::{Shape, Tensor};
use ddpm_train::samplers::{self, Plan};

use crate::picture::{
    Picture, film,
    grid::{self, Images},
};

/// Bytes that the frames of a film may take while they are collected.
const FILM_BYTES: usize = 256 << 20;

/// What is drawn, by which network, along which steps.
pub(super) struct Drawing<'a, B: Backend<Elem = f32>> {
    /// The device.
    pub(super) backend: &'a B,
    /// The network.
    pub(super) unet: &'a UNet,
    /// Its parameters.
    pub(super) parameters: &'a Parameters<B>,
    /// The sampler's steps.
    pub(super) plan: &'a Plan,
    /// Height, width and channels of an image.
    pub(super) image: [usize; 3],
    /// Where the noise comes from.
    pub(super) seed: u64,
    /// Images that are drawn at once.
    pub(super) batch: usize,
    /// Latents instead of the seed's, `[N, H, W, C]`.
    pub(super) noise: Option<&'a [f32]>,
    /// The class of each image.
    pub(super) classes: Option<&'a [usize]>,
    /// Whether frames of a film are kept.
    pub(super) film: bool,
}

/// Images as the sampler left them, and frames if they were wanted.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    /// `[N, H, W, C]`.
    pub(super) values: Vec<f32>,
    /// Grids of all images, from noise to the end.
    pub(super) frames: Vec<Picture>,
}

impl Drawn {
    /// The images.
    pub(super) fn images(&self, [height, width, channels]: [usize; 3]) -> Images<'_> {
        let n = self.values.len() / (height * width * channels).max(1);
        Images { n, height, width, channels, values: &self.values }
    }
}

/// How many images are drawn at once where nobody says: many small ones, few large ones.
pub(super) fn batch_for([height, width, channels]: [usize; 3]) -> usize {
    (64 * 64 * 64 / (height * width * channels.div_ceil(3)).max(1)).clamp(1, 64)
}

impl<B: Backend<Elem = f32>> Drawing<'_, B> {
    /// Draws `n` images. `watch` hears after every step how many steps of all are done.
    ///
    /// # Errors
    /// Those of network and device, and of `watch`.
    pub(super) fn run(&self, n: usize, watch: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Drawn> {
        let [height, width, channels] = self.image;
        let size = height * width * channels;
        let steps = self.plan.steps.len();
        let batches = n.div_ceil(self.batch);
        let shown: Vec<usize> =
            (0..steps).filter(|&step| self.film && film::is_shown(step, steps, self.frames(n))).collect();
        let mut drawn = Drawn { values: Vec::with_capacity(n * size), frames: Vec::new() };
        // Frame by frame, the images of all batches one after the other.
        let mut frames: Vec<Vec<f32>> = vec![Vec::new(); if self.film { shown.len() + 1 } else { 0 }];
        for (index, first) in (0..n).step_by(self.batch).enumerate() {
            let count = self.batch.min(n - first);
            let shape = Shape::from([count, height, width, channels]);
            let images = samplers::Images { seed: self.seed, first: first as u64 };
            let x = match self.noise {
                Some(noise) => Tensor::from_slice(self.backend, shape, &noise[first * size..(first + count) * size])?,
                None => samplers::latents(self.backend, shape, images)?,
            };
            if let Some(frame) = frames.first_mut() {
                frame.extend(x.to_vec(self.backend)?);
            }
            let classes = self.classes.map(|classes| &classes[first..first + count]);
            let x = self.plan.run(
                self.backend,
                x,
                images,
                false,
                |x, t| {
                    let times = vec![t as f32; count];
                    let mode = Mode::Infer;
                    let pass = self.unet.forward(self.backend, self.parameters, x.view(), &times, classes, mode);
                    Ok::<_, Ended>(pass?.0)
                },
                |moment| {
                    if let Ok(frame) = shown.binary_search(&moment.step)
                        && let Some(frame) = frames.get_mut(frame + 1)
                    {
                        let x = self.backend.affine(moment.x.view(), moment.scale, 0.0)?;
                        frame.extend(x.to_vec(self.backend).map_err(anyhow::Error::from)?);
                    }
                    let done = (index * steps + moment.step + 1) as u64;
                    Ok(watch(done, (batches * steps) as u64)?)
                },
            );
            drawn.values.extend(x.map_err(|Ended(error)| error)?.to_vec(self.backend)?);
        }
        ensure!(drawn.values.iter().all(|x| x.is_finite()), "the model drew numbers that are infinite or not a number");
        for values in &frames {
            drawn.frames.push(grid::grid(Images { n, height, width, channels, values })?);
        }
        Ok(drawn)
    }

    /// Frames of a film of `n` images: fewer where they would not fit in memory.
    fn frames(&self, n: usize) -> usize {
        let [height, width, channels] = self.image;
        let frame = (n * height * width * channels * size_of::<f32>()).max(1);
        self.plan.steps.len().min(film::MOST_FRAMES).min((FILM_BYTES / frame).max(2))
    }
}

/// Any error that ends sampling.
struct Ended(anyhow::Error);

impl From<KernelError> for Ended {
    fn from(error: KernelError) -> Self {
        Self(error.into())
    }
}

impl From<NnError> for Ended {
    fn from(error: NnError) -> Self {
        Self(error.into())
    }
}

impl From<anyhow::Error> for Ended {
    fn from(error: anyhow::Error) -> Self {
        Self(error)
    }
}
