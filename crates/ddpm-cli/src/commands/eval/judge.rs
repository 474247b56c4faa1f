//! What looks at pictures: a feature network, and what is kept of its features.

use std::{fs, ops::Range, path::Path};

use anyhow::{Context, Result};
use ddpm_train::{
    data::DataSet,
    eval::{
        FeatureNetwork, Features, Moments, Statistics, frechet_distance,
        scores::{self, Rows, Spread},
    },
};

use super::super::{
    classes::WithoutClass,
    drawing::{Begin, Drawing, Film},
    machine::Machinery,
    studio::Studio,
};
use crate::{
    args::{How, Measure},
    failure::{Explain, Failure},
    output::Output,
    picture::byte,
    progress::Progress,
};

/// Pictures of the data whose features are made at once.
const AT_ONCE: usize = 64;

/// The feature network, and what it is to look at.
pub(in crate::commands) struct Judge<'a, B: Machinery> {
    /// The model and the device.
    pub(in crate::commands) studio: &'a Studio<B>,
    /// The feature network.
    pub(in crate::commands) network: FeatureNetwork<B>,
    image: [usize; 3],
}

/// What is kept of features: never the pictures, and for Fréchet distances not the features either.
enum Kept {
    Statistics(Moments),
    Rows(Vec<f32>),
}

/// What a measure needs of one side, the model's or the data's.
pub(in crate::commands) enum Side {
    /// Mean and covariance.
    Statistics(Statistics),
    /// All features, or all logits.
    Rows(Vec<f32>),
}

/// The feature network that a flag names, or the program's own, for pictures `[H, W, C]`.
pub(in crate::commands) fn network<B: Machinery>(
    device: &B,
    features: Option<&Path>,
    image: [usize; 3],
) -> Result<FeatureNetwork<B>> {
    let network = match features {
        Some(path) => {
            let bytes = fs::read(path).context("cannot read the feature network").at(path.display())?;
            FeatureNetwork::inception(device, &bytes)
                .at(path.display())
                .next("tests/convert/inception_to_safetensors.py makes it of pytorch-fid's file")?
        }
        None => FeatureNetwork::digits(device)?,
    };
    if let Err(error) = network.check(image) {
        let hint = "--features inception.safetensors names a network for pictures of other kinds";
        return Err(Failure::usage(error).next(hint).into());
    }
    Ok(network)
}

impl<'a, B: Machinery> Judge<'a, B> {
    /// For the pictures of a model.
    pub(in crate::commands) fn open(studio: &'a Studio<B>, features: Option<&Path>) -> Result<Self> {
        let image = studio.image()?;
        Ok(Self { studio, network: network(&studio.device, features, image)?, image })
    }

    /// What a measure keeps, empty yet.
    fn kept(&self, measure: Measure) -> (Measure, Kept) {
        let widths = self.network.widths();
        let kept = match measure {
            Measure::Fid => Kept::Statistics(Moments::new(widths.pooled)),
            Measure::Sfid => Kept::Statistics(Moments::new(widths.placed)),
            _ => Kept::Rows(Vec::new()),
        };
        (measure, kept)
    }

    /// Adds the features of pictures of 8 bits to what measures keep.
    fn take(&self, levels: &[u8], all: &mut [(Measure, Kept)]) -> Result<()> {
        let Features { pooled, placed, logits } = self.network.features(&self.studio.device, levels, self.image)?;
        for (measure, kept) in all {
            let rows = match measure {
                Measure::Sfid => &placed,
                Measure::Is => &logits,
                _ => &pooled,
            };
            match kept {
                Kept::Statistics(moments) => moments.push(rows)?,
                Kept::Rows(all) => all.extend(rows),
            }
        }
        Ok(())
    }

    /// The features of `n` pictures of the model, drawn and dropped batch by batch, as each measure needs them. `watch` hears
    /// every step and may end it.
    pub(in crate::commands) fn drawn(
        &self,
        how: &How,
        output: Output,
        n: usize,
        measures: &[Measure],
        watch: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<Side>> {
        let (studio, image) = (self.studio, self.image);
        let plan = studio.plan()?;
        let labels = studio.classes(how, WithoutClass::Turns)?.labels(n);
        let (batch, steps) = (studio.batch(image), plan.steps.len());
        let mut progress = Progress::new(output, "sampling", 0, (n.div_ceil(batch) * steps) as u64);
        let mut kept: Vec<_> = measures.iter().map(|measure| self.kept(*measure)).collect();
        for (index, first) in (0..n).step_by(batch).enumerate() {
            let count = batch.min(n - first);
            let drawing = Drawing {
                first: first as u64,
                begin: Begin::Seed,
                classes: labels.as_deref().map(|labels| &labels[first..first + count]),
                film: Film::None,
                ..studio.drawing(&plan, image)
            };
            let drawn = drawing.run(count, &mut |done, _| {
                progress.at((index * steps) as u64 + done, || format!("{n} pictures by {}", studio.sampler.name));
                watch()
            })?;
            let levels: Vec<u8> = drawn.values.iter().map(|&x| byte(x)).collect();
            self.take(&levels, &mut kept)?;
        }
        progress.finish();
        finish(kept)
    }

    /// The features of some pictures of the data, as each measure needs them.
    pub(in crate::commands) fn of_data(
        &self,
        output: Output,
        data: &DataSet,
        part: Range<usize>,
        measures: &[Measure],
    ) -> Result<Vec<Side>> {
        let n = part.len();
        let mut progress = Progress::new(output, "reading", 0, n as u64);
        let mut kept: Vec<_> = measures.iter().map(|measure| self.kept(*measure)).collect();
        for first in part.clone().step_by(AT_ONCE) {
            let range = first..(first + AT_ONCE).min(part.end);
            let mut levels = vec![0; range.len() * data.image_len()];
            for (index, out) in range.clone().zip(levels.chunks_exact_mut(data.image_len())) {
                data.image(index, out)?;
            }
            self.take(&levels, &mut kept)?;
            progress.at((range.end - part.start) as u64, || format!("{n} pictures of the data"));
        }
        progress.finish();
        finish(kept)
    }

    /// Fréchet distance of two sides' statistics.
    pub(in crate::commands) fn distance(model: &Side, data: &Side) -> Result<f64> {
        match (model, data) {
            (Side::Statistics(model), Side::Statistics(data)) => Ok(frechet_distance(model, data)?),
            _ => Err(Failure::new("there are no statistics to compare").into()),
        }
    }

    /// Inception score of a side's logits.
    pub(in crate::commands) fn inception_score(&self, side: &Side) -> Result<Spread> {
        let Side::Rows(logits) = side else { return Err(Failure::new("there are no logits to score").into()) };
        Ok(scores::inception_score(Rows::new(logits, self.network.widths().logits)?, scores::IS_SPLITS)?)
    }
}

fn finish(kept: Vec<(Measure, Kept)>) -> Result<Vec<Side>> {
    let side = |kept| {
        Ok(match kept {
            Kept::Statistics(moments) => Side::Statistics(moments.finish()?),
            Kept::Rows(rows) => Side::Rows(rows),
        })
    };
    kept.into_iter().map(|(_, kept)| side(kept)).collect()
}
