//! The figures: what the paper shows, and how it is drawn.

use std::path::Path;

use anyhow::Result;
use clap::Parser;
use ddpm_train::{
    data::{self, DataOptions, DataSet},
    settings::Settings,
};

use crate::{
    args::How,
    commands::{
        classes::WithoutClass,
        drawing::{Begin, Film},
        interpolate::mixed,
        machine::Machinery,
        studio::{Asked, Studio},
    },
    failure::Explain,
    picture::{
        Picture,
        grid::{self, Images},
    },
};

/// A figure of Ho et al. 2020.
pub(super) struct Figure {
    /// What `ddpm reproduce` takes.
    pub(super) name: &'static str,
    /// What the paper shows.
    pub(super) paper: &'static str,
    /// How ours is read.
    pub(super) here: &'static str,
    /// Draws it.
    pub(super) draw: fn(&dyn Draw) -> Result<Picture>,
}

/// Those that can be drawn.
pub(super) const FIGURES: &[Figure] = &[
    Figure {
        name: "fig6",
        paper: "figure 6: progressive generation on CIFAR-10; coarse features are there first, details last",
        here: "a row for each picture, x̂_0 from noise on the left to the end on the right, equally many steps apart",
        draw: |scene| scene.progressive(),
    },
    Figure {
        name: "fig7",
        paper: "figure 7: on CelebA-HQ, samples that share x_t share what is large in it: all for small t, little for large t",
        here: "a row for each t of T, 3T/4, T/2, T/4: the source, its x_t, and six x_0 drawn from that x_t",
        draw: |scene| scene.shared(),
    },
    Figure {
        name: "fig8",
        paper: "figure 8: interpolations of CelebA-HQ pictures by 500 of 1000 steps change smoothly in pose, hair, expression",
        here: "a row for each pair: source, its reconstruction, λ = 0.1 to 0.9, the other's reconstruction, the other source",
        draw: |scene| scene.interpolated(),
    },
];

/// Rows of a figure.
const ROWS: usize = 5;
/// Columns of the progressive generation.
const COLUMNS: usize = 12;
/// Pictures drawn from one x_t.
const SHARED: usize = 6;

/// The paper's sampler with all its steps.
pub(super) fn how() -> How {
    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        how: How,
    }
    Flags::parse_from(["", "--sampler", "ddpm"]).how
}

/// What figures are made of, whatever the device.
pub(super) trait Draw {
    fn progressive(&self) -> Result<Picture>;
    fn shared(&self) -> Result<Picture>;
    fn interpolated(&self) -> Result<Picture>;
}

/// A model, and pictures that it has not seen.
pub(super) struct Scene<'a, B: Machinery> {
    studio: &'a Studio<B>,
    how: &'a How,
    data: DataSet,
    image: [usize; 3],
}

impl<'a, B: Machinery> Scene<'a, B> {
    pub(super) fn new(studio: &'a Studio<B>, how: &'a How, settings: &Settings) -> Result<Self> {
        let options = DataOptions::from_settings(&settings.data).at("data")?;
        let data = data::open(Path::new(&settings.data.path), &options).at(&settings.data.path)?;
        Ok(Self { studio, how, data, image: studio.image()? })
    }

    fn len(&self) -> usize {
        self.image.iter().product()
    }

    /// Held-out pictures, or training pictures where none are held out: from the first on, and so many of them.
    fn pictures(&self, n: usize) -> Result<Vec<f32>> {
        let held_out = self.data.heldout_indices();
        let all = if held_out.len() < n { self.data.train_indices() } else { held_out };
        let mut values = vec![0.0; n * self.len()];
        for (i, picture) in values.chunks_exact_mut(self.len()).enumerate() {
            self.data.image_f32(all.start + i % all.len().max(1), picture)?;
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

    /// x̄_0 ~ p(x_0 | (1−λ) x_t + λ x'_t), section 4.3.
    fn interpolated(&self) -> Result<Picture> {
        let sources = self.pictures(2 * ROWS)?;
        let total = self.studio.schedule.time_steps();
        let plan = self.studio.plan_from((total / 2) as f64)?;
        let x_t = self.studio.noised(&plan, &sources, self.image, false)?;
        let parts: Vec<f64> = (0..=10).map(|i| f64::from(i) / 10.0).collect();
        let pairs = |values: &'_ [f32]| -> Vec<(Vec<f32>, Vec<f32>)> {
            let pair = values.chunks_exact(2 * self.len());
            pair.map(|pair| (pair[..self.len()].to_vec(), pair[self.len()..].to_vec())).collect()
        };
        let mixed: Vec<f32> = pairs(&x_t).iter().flat_map(|(a, b)| mixed(a, b, &parts)).collect();
        let n = ROWS * parts.len();
        let labels = self.labels(1)?.map(|labels| labels.repeat(n));
        let asked =
            Asked { begin: Begin::Noised(&mixed), labels: labels.as_deref(), film: Film::None, columns: parts.len() };
        let drawn = self.studio.draw(&plan, self.image, n, asked)?;
        let mut values = Vec::new();
        for ((a, b), between) in pairs(&sources).iter().zip(drawn.values.chunks_exact(parts.len() * self.len())) {
            values.extend([a, between, b].into_iter().flatten());
        }
        self.rows(parts.len() + 2, &values)
    }
}
