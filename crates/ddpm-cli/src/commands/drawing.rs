//! Drawing images with a model, batch by batch: what `sample` does, and `train` at its end.

use anyhow::Result;
use ddpm_kernels::Backend;
use ddpm_nn::{Mode, Parameters, UNet};
use ddpm_tensor::{Shape, Tensor};
use ddpm_train::samplers::{self, Asked, Guidance, Plan, guided_output};

use super::studio::Stop;
use crate::{
    failure::NotNumbers,
    picture::{
        Picture, film,
        grid::{self, Images},
    },
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
    /// Index of the first image among those of the seed.
    pub(super) first: u64,
    /// Images that are drawn at once.
    pub(super) batch: usize,
    /// What the first step takes.
    pub(super) begin: Begin<'a>,
    /// The class of each image.
    pub(super) classes: Option<&'a [usize]>,
    /// Guidance.
    pub(super) guidance: Option<&'a Guidance>,
    /// The weaker network that it may lead away from.
    pub(super) weaker: Option<(&'a UNet, &'a Parameters<B>)>,
    /// Which frames of a film are kept.
    pub(super) film: Film,
    /// Columns of its grids.
    pub(super) columns: usize,
}

/// What the first step takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Begin<'a> {
    /// The seed's latents.
    Seed,
    /// Standard normal latents `[N, H, W, C]`.
    Latents(&'a [f32]),
    /// x_t of the forward process, at the first step's time step, `[N, H, W, C]`.
    Noised(&'a [f32]),
}

/// What a film shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Film {
    /// There is none.
    None,
    /// x_t.
    Xt,
    /// x̂_0.
    X0,
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
    /// Refuses images that are none.
    pub(super) fn check(&self) -> Result<()> {
        if self.values.iter().all(|x| x.is_finite()) { Ok(()) } else { Err(NotNumbers.into()) }
    }

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
            (0..steps).filter(|&step| self.film != Film::None && film::is_shown(step, steps, self.frames(n))).collect();
        let mut drawn = Drawn { values: Vec::with_capacity(n * size), frames: Vec::new() };
        // Frame by frame, the images of all batches one after the other; a film of x_t begins with the noise.
        let noise = usize::from(self.film == Film::Xt);
        let mut frames: Vec<Vec<f32>> = vec![Vec::new(); shown.len() + noise];
        for (index, first) in (0..n).step_by(self.batch).enumerate() {
            let count = self.batch.min(n - first);
            let shape = Shape::from([count, height, width, channels]);
            let images = samplers::Images { seed: self.seed, first: self.first + first as u64 };
            let given =
                |values: &[f32]| Tensor::from_slice(self.backend, shape, &values[first * size..(first + count) * size]);
            let x_t = match self.begin {
                Begin::Seed => samplers::latents(self.backend, shape, images)?,
                Begin::Latents(values) | Begin::Noised(values) => given(values)?,
            };
            if noise == 1
                && let Some(frame) = frames.first_mut()
            {
                frame.extend(x_t.to_vec(self.backend)?);
            }
            let classes = self.classes.map(|classes| &classes[first..first + count]);
            let network = |x: &Tensor<B>, t: f64| Ok::<_, Stop>(self.output(x, t, classes)?);
            let watch = |moment: &samplers::Moment<'_, B>| {
                if let Ok(frame) = shown.binary_search(&moment.step)
                    && let Some(frame) = frames.get_mut(frame + noise)
                {
                    let seen = match moment.x_0.filter(|_| self.film == Film::X0) {
                        Some(x_0) => x_0.to_vec(self.backend),
                        None => self.backend.affine(moment.x.view(), moment.scale, 0.0)?.to_vec(self.backend),
                    };
                    frame.extend(seen.map_err(anyhow::Error::from)?);
                }
                let done = (index * steps + moment.step + 1) as u64;
                Ok(watch(done, (batches * steps) as u64)?)
            };
            let show_x_0 = self.film == Film::X0;
            let x = match (self.begin, self.plan.steps.first()) {
                (Begin::Noised(_), Some(step)) => {
                    let x = self.backend.affine(x_t.view(), 1.0 / step.input, 0.0)?;
                    self.plan.run_from(self.backend, x, images, show_x_0, network, watch)
                }
                _ => self.plan.run(self.backend, x_t, images, show_x_0, network, watch),
            };
            drawn.values.extend(x.map_err(|Stop(error)| error)?.to_vec(self.backend)?);
        }
        drawn.check()?;
        for values in &frames {
            drawn.frames.push(grid::rows_of(self.columns, Images { n, height, width, channels, values })?);
        }
        Ok(drawn)
    }

    /// What the network says of x_t, guided where guidance acts.
    pub(super) fn output(&self, x: &Tensor<B>, t: f64, classes: Option<&[usize]>) -> Result<Tensor<B>> {
        guided_output(self.guidance, self.backend, x, t, classes, |asked, x, times, classes| {
            let own = (self.unet, self.parameters);
            let (unet, parameters) = if asked == Asked::Weaker { self.weaker.unwrap_or(own) } else { own };
            let pass = unet.forward(self.backend, parameters, x.view(), times, classes, Mode::Infer);
            Ok(pass?.0)
        })
    }

    /// Frames of a film of `n` images: fewer where they would not fit in memory.
    fn frames(&self, n: usize) -> usize {
        let [height, width, channels] = self.image;
        let frame = (n * height * width * channels * size_of::<f32>()).max(1);
        self.plan.steps.len().min(film::MOST_FRAMES).min((FILM_BYTES / frame).max(2))
    }
}
