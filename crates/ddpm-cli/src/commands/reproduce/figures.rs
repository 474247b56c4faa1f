//! The figures: what the paper shows, and how it is drawn.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::{
    super::{
        classes::WithoutClass,
        drawing::{Begin, Film},
        interpolate::mixed,
        machine::{Machinery, on_device},
        studio::{Asked, Ready, Studio},
    },
    Work, scale,
    scoring::data_of,
};
use crate::{
    args::How,
    failure::Explain,
    picture::{
        Picture,
        grid::{self, Images},
        png,
    },
};

/// Rows of a figure.
const ROWS: usize = 5;
/// Columns of the progressive generation.
const COLUMNS: usize = 12;
/// Pictures drawn from one x_t.
const SHARED: usize = 6;
/// Pictures of a grid of samples.
const SAMPLES: usize = 64;
/// Steps from one picture to another, both ends included: λ = 0, 0.1, …, 1.
const LAMBDAS: usize = 11;

/// Draws a figure and says what it shows.
pub(super) fn make(work: &Work<'_>, draw: fn(&dyn Draw) -> Result<Picture>) -> Result<()> {
    let (args, output, part) = (work.args, work.output, work.part);
    let place = work.model()?;
    let how = work.how();
    let (ready, device) = Ready::open(&place, &how, &args.machine, output)?;
    let (scale, steps) = (scale(work, &ready), ready.model.step);
    let (picture, mut about) = on_device!(device, device => {
        let studio = ready.on(device)?;
        let scene = Scene { work, place: &place, image: studio.image()?, studio: &studio, how: &how };
        (draw(&scene)?, studio.about())
    });
    work.watch()?;
    about["command"] = json!(format!("reproduce {}", part.name));
    let path = work.folder.join(format!("{}.png", part.name));
    png::write(&path, &picture, &[("ddpm".to_owned(), about.to_string())]).at(path.display())?;
    output.result(&path.display().to_string())?;
    work.tell(&scale)?;
    Ok(output.json(&json!({
        "name": part.name, "out": path, "model": place, "model_steps": steps, "scale": scale, "paper": part.paper,
        "here": part.here,
    }))?)
}

/// What figures are made of, whatever the device.
pub(super) trait Draw {
    fn samples(&self) -> Result<Picture>;
    fn progressive(&self) -> Result<Picture>;
    fn shared(&self) -> Result<Picture>;
    fn interpolated(&self) -> Result<Picture>;
    fn coarse_to_fine(&self) -> Result<Picture>;
}

/// A model that draws.
struct Scene<'a, B: Machinery> {
    work: &'a Work<'a>,
    place: &'a Path,
    studio: &'a Studio<B>,
    how: &'a How,
    image: [usize; 3],
}

impl<B: Machinery> Scene<'_, B> {
    fn len(&self) -> usize {
        self.image.iter().product()
    }

    /// Held-out pictures, or training pictures where none are held out: from the first on, and so many of them.
    fn pictures(&self, n: usize) -> Result<Vec<f32>> {
        let data = data_of(self.work, self.place, self.studio)?;
        let held_out = data.heldout_indices();
        let all = if held_out.len() < n { data.train_indices() } else { held_out };
        let mut values = vec![0.0; n * self.len()];
        for (i, picture) in values.chunks_exact_mut(self.len()).enumerate() {
            data.image_f32(all.start + i % all.len().max(1), picture)?;
        }
        Ok(values)
    }

    fn labels(&self, n: usize) -> Result<Option<Vec<usize>>> {
        Ok(self.studio.classes(self.how, WithoutClass::Turns)?.labels(n))
    }

    fn rows(&self, across: usize, values: &[f32]) -> Result<Picture> {
        let [height, width, channels] = self.image;
        grid::rows_of(across, Images { n: values.len() / self.len(), height, width, channels, values })
    }
}

impl<B: Machinery> Draw for Scene<'_, B> {
    fn samples(&self) -> Result<Picture> {
        let labels = self.labels(SAMPLES)?;
        let asked = Asked { begin: Begin::Seed, labels: labels.as_deref(), film: Film::None, columns: 1 };
        let drawn = self.studio.draw(&self.studio.plan()?, self.image, SAMPLES, asked)?;
        grid::grid(drawn.images(self.image))
    }

    /// Ho et al. 2020, eq. 15 along algorithm 2.
    fn progressive(&self) -> Result<Picture> {
        let labels = self.labels(ROWS)?;
        let asked = Asked { begin: Begin::Seed, labels: labels.as_deref(), film: Film::X0, columns: 1 };
        let drawn = self.studio.draw(&self.studio.plan()?, self.image, ROWS, asked)?;
        let last = drawn.frames.len() - 1;
        let shown: Vec<&Picture> = (0..COLUMNS).map(|i| &drawn.frames[i * last / (COLUMNS - 1)]).collect();
        Ok(grid::beside(&shown))
    }

    /// x_0 ~ p(x_0 | x_t) for one x_t.
    fn shared(&self) -> Result<Picture> {
        let source = self.pictures(1)?;
        let labels = self.labels(1)?.map(|labels| labels.repeat(SHARED));
        let total = self.studio.schedule.time_steps();
        let mut values = Vec::new();
        for quarter in (1..=4).rev() {
            let plan = self.studio.plan_from((total * quarter / 4 - 1) as f64)?;
            let x_t = self.studio.noised(&plan, &source.repeat(SHARED), self.image, true)?;
            let asked =
                Asked { begin: Begin::Noised(&x_t), labels: labels.as_deref(), film: Film::None, columns: SHARED };
            let drawn = self.studio.draw(&plan, self.image, SHARED, asked)?;
            values.extend_from_slice(&source);
            values.extend_from_slice(&x_t[..self.len()]);
            values.extend_from_slice(&drawn.values);
        }
        self.rows(SHARED + 2, &values)
    }

    /// x̄_0 ~ p(x_0 | (1−λ) x_t + λ x'_t), section 4.4, for several pairs.
    fn interpolated(&self) -> Result<Picture> {
        let total = self.studio.schedule.time_steps();
        let values = self.walks(&self.pictures(2 * ROWS)?, total / 2)?;
        self.rows(LAMBDAS + 2, &values)
    }

    /// The same of one pair by T, 7T/8, …, 0 steps: by 0, pixels are mixed (appendix D).
    fn coarse_to_fine(&self) -> Result<Picture> {
        let pair = self.pictures(2)?;
        let total = self.studio.schedule.time_steps();
        let mut values = Vec::new();
        for eighth in (0..=8).rev() {
            match (total * eighth / 8).checked_sub(1) {
                Some(t) => values.extend(self.walks(&pair, t)?),
                None => values.extend(self.beside_sources(&pair, &self.mixes(&pair))),
            }
        }
        self.rows(LAMBDAS + 2, &values)
    }
}

impl<B: Machinery> Scene<'_, B> {
    /// Pairs of pictures, one after the other.
    fn pairs<'v>(&self, values: &'v [f32]) -> impl Iterator<Item = (&'v [f32], &'v [f32])> {
        let len = self.len();
        values.chunks_exact(2 * len).map(move |pair| pair.split_at(len))
    }

    /// (1−λ) a + λ b for λ = 0, 0.1, …, 1 of each pair.
    fn mixes(&self, pairs: &[f32]) -> Vec<f32> {
        let lambdas: Vec<f64> = (0..LAMBDAS).map(|i| i as f64 / (LAMBDAS - 1) as f64).collect();
        self.pairs(pairs).flat_map(|(a, b)| mixed(a, b, &lambdas)).collect()
    }

    /// Rows: source, what lies between, the other source.
    fn beside_sources(&self, pairs: &[f32], between: &[f32]) -> Vec<f32> {
        let rows = self.pairs(pairs).zip(between.chunks_exact(LAMBDAS * self.len()));
        rows.flat_map(|((a, b), between)| [a, between, b].into_iter().flatten()).copied().collect()
    }

    /// A row for each pair of sources, from the mixes of their x_t; λ = 0 and 1 are reconstructions.
    fn walks(&self, sources: &[f32], t: usize) -> Result<Vec<f32>> {
        let plan = self.studio.plan_from(t as f64)?;
        let mixes = self.mixes(&self.studio.noised(&plan, sources, self.image, false)?);
        let n = mixes.len() / self.len();
        let labels = self.labels(1)?.map(|labels| labels.repeat(n));
        let asked =
            Asked { begin: Begin::Noised(&mixes), labels: labels.as_deref(), film: Film::None, columns: LAMBDAS };
        Ok(self.beside_sources(sources, &self.studio.draw(&plan, self.image, n, asked)?.values))
    }
}
