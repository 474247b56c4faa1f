//! `ddpm eval fid|kid|is|pr|sfid`: a model's pictures against data, by the features of another network.

use std::{
    fs::{self, File},
    io::{BufReader, BufWriter},
    path::Path,
};

use anyhow::{Context, Result};
use ddpm_train::{
    data::DataSet,
    eval::{
        self, FeatureNetwork, Features, Moments, Reference, ReferenceFile, Statistics, frechet_distance,
        scores::{self, Rows, Spread},
    },
};
use serde_json::{Value, json};

use super::{
    super::{
        classes::WithoutClass,
        drawing::{Begin, Drawing, Film},
    },
    Machinery, Studio, reference,
};
use crate::{
    args::{EvalArgs, Measure},
    failure::{Explain, Failure},
    output::Output,
    picture::{byte, png::appear},
    progress::Progress,
};

/// Pictures of the model where nobody says how many.
const COUNT: usize = 1000;
/// Pictures of the data whose features are made at once.
const AT_ONCE: usize = 64;

pub(super) fn run<B: Machinery>(args: &EvalArgs, output: Output, studio: &Studio<B>) -> Result<()> {
    let image = studio.image()?;
    let judge = Judge::open(args, studio, image)?;
    let data = match args.measure {
        Measure::Is => None,
        _ => Some(judge.data(args, output)?),
    };
    let n = args.n.map_or(COUNT, |n| n as usize);
    let model = judge.pictures(args, output, n)?;
    let (words, mut found) = score(args, studio.seed(), &judge, model, data.as_ref())?;
    let against = data.as_ref().map(|data| format!(" against {} of {}", data.n, data.name)).unwrap_or_default();
    output.result(&format!("{words}  {n} pictures{against}"))?;
    output.result(&format!("features: {}, resize: {}", judge.network.name(), judge.network.resize()))?;
    if args.features.is_none() {
        output.note("these are the program's own features: compare such scores with each other only");
    }
    found["n"] = json!(n);
    found["n_data"] = json!(data.as_ref().map(|data| data.n));
    found["data"] = json!(data.as_ref().map(|data| &data.name));
    found["features"] = json!(judge.network.name());
    found["features_hash"] = json!(judge.network.hash());
    found["resize"] = json!(judge.network.resize());
    found["drawn"] = studio.about();
    output.json(&found)?;
    Ok(())
}

/// The feature network, and what it is to look at.
struct Judge<'a, B: Machinery> {
    studio: &'a Studio<B>,
    network: FeatureNetwork<B>,
    image: [usize; 3],
}

/// What is kept of features: never the pictures, and for Fréchet distances not the features either.
enum Kept {
    Statistics(Moments),
    Rows(Vec<f32>),
}

/// The data's side.
struct Data {
    name: String,
    n: usize,
    side: Side,
}

enum Side {
    Statistics(Statistics),
    Rows(Vec<f32>),
}

impl<'a, B: Machinery> Judge<'a, B> {
    fn open(args: &EvalArgs, studio: &'a Studio<B>, image: [usize; 3]) -> Result<Self> {
        let network = match &args.features {
            Some(path) => {
                let bytes = fs::read(path).context("cannot read the feature network").at(path.display())?;
                FeatureNetwork::inception(&studio.device, &bytes)
                    .at(path.display())
                    .next("tests/convert/inception_to_safetensors.py makes it of pytorch-fid's file")?
            }
            None => FeatureNetwork::digits(&studio.device)?,
        };
        if let Err(error) = network.check(image) {
            let hint = "--features inception.safetensors names a network for pictures of other kinds";
            return Err(Failure::usage(error).place(args.model.display()).next(hint).into());
        }
        Ok(Self { studio, network, image })
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

    /// The features of `n` pictures of the model, drawn and dropped batch by batch.
    fn pictures(&self, args: &EvalArgs, output: Output, n: usize) -> Result<Side> {
        let (studio, image) = (self.studio, self.image);
        let plan = studio.plan()?;
        let labels = studio.classes(&args.how, WithoutClass::Turns)?.labels(n);
        let (batch, steps) = (studio.batch(image), plan.steps.len());
        let mut progress = Progress::new(output, "sampling", 0, (n.div_ceil(batch) * steps) as u64);
        let mut kept = [self.kept(args.measure)];
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
                Ok(())
            })?;
            let levels: Vec<u8> = drawn.values.iter().map(|&x| byte(x)).collect();
            self.take(&levels, &mut kept)?;
        }
        progress.finish();
        let [(_, kept)] = kept;
        kept.finish()
    }

    /// The data's side: statistics from a file, or the features of its pictures.
    fn data(&self, args: &EvalArgs, output: Output) -> Result<Data> {
        let Some(path) = &args.reference else {
            let (data, part) = reference(args, self.studio)?;
            return self.measured(args, output, &data, part);
        };
        let file = File::open(path).context("cannot open the statistics").at(path.display())?;
        match ReferenceFile::read(BufReader::new(file)).at(path.display())? {
            ReferenceFile::Images => {
                let named = EvalArgs { data: Some(path.clone()), ..args.clone() };
                let (data, part) = reference(&named, self.studio)?;
                self.measured(args, output, &data, part)
            }
            ReferenceFile::Statistics { pooled, placed, about } => {
                self.check_about(path, about.as_ref())?;
                let chosen = if args.measure == Measure::Sfid { placed } else { Some(pooled) };
                let Some(statistics) = chosen else {
                    let what = "this file has no statistics of features with places (mu_s, sigma_s)";
                    return Err(Failure::new(what).place(path.display()).next("--data PATH makes them").into());
                };
                let n = about.map_or(0, |about| about.n);
                Ok(Data { name: path.display().to_string(), n, side: Side::Statistics(statistics) })
            }
        }
    }

    /// Statistics of other features say nothing.
    fn check_about(&self, path: &Path, about: Option<&Reference>) -> Result<()> {
        match about {
            Some(about) if about.features_hash != self.network.hash() => {
                let what = format!("these are statistics of other features: {}", about.features);
                Err(Failure::new(what).place(path.display()).next("--data PATH makes them anew").into())
            }
            _ => Ok(()),
        }
    }

    fn measured(&self, args: &EvalArgs, output: Output, data: &DataSet, part: std::ops::Range<usize>) -> Result<Data> {
        let n = part.len();
        let mut progress = Progress::new(output, "reading", 0, n as u64);
        // a file of statistics has both kinds
        let mut kept = vec![self.kept(args.measure)];
        if args.write_reference.is_some() {
            kept.extend([Measure::Fid, Measure::Sfid].map(|measure| self.kept(measure)));
        }
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
        let mut sides = kept.into_iter().map(|(_, kept)| kept.finish()).collect::<Result<Vec<_>>>()?.into_iter();
        let side = sides.next().context("nothing was kept")?;
        if let (Some(path), Some(Side::Statistics(pooled)), Some(Side::Statistics(placed))) =
            (&args.write_reference, sides.next(), sides.next())
        {
            self.write(path, n, &pooled, &placed)?;
            output.result(&path.display().to_string())?;
        }
        Ok(Data { name: data.path().display().to_string(), n, side })
    }

    fn write(&self, path: &Path, n: usize, pooled: &Statistics, placed: &Statistics) -> Result<()> {
        let about = Reference {
            features: self.network.name().to_owned(),
            features_hash: self.network.hash().to_owned(),
            resize: self.network.resize().to_owned(),
            n,
        };
        appear(path, |file| Ok(eval::write_reference(BufWriter::new(file), pooled, Some(placed), &about)?))
            .at(path.display())
    }
}

impl Kept {
    fn finish(self) -> Result<Side> {
        Ok(match self {
            Self::Statistics(moments) => Side::Statistics(moments.finish()?),
            Self::Rows(rows) => Side::Rows(rows),
        })
    }
}

/// The score in words and as JSON.
fn score<B: Machinery>(
    args: &EvalArgs,
    seed: u64,
    judge: &Judge<'_, B>,
    model: Side,
    data: Option<&Data>,
) -> Result<(String, Value)> {
    let widths = judge.network.widths();
    Ok(match (args.measure, model, data.map(|data| &data.side)) {
        (Measure::Fid | Measure::Sfid, Side::Statistics(model), Some(Side::Statistics(data))) => {
            let name = if args.measure == Measure::Fid { "fid" } else { "sfid" };
            let distance = frechet_distance(&model, data)?;
            (format!("{name} {distance:.4}"), json!({ name: distance }))
        }
        (Measure::Kid, Side::Rows(model), Some(Side::Rows(data))) => {
            let (model, data) = (Rows::new(&model, widths.pooled)?, Rows::new(data, widths.pooled)?);
            let kid = scores::kernel_distance(model, data, scores::KID_SUBSETS, scores::KID_SUBSET, seed)?;
            let Spread { mean, std, count } = kid;
            let words = format!("kid {mean:.6} (standard error {:.6}, {count} subsets)", kid.std_error());
            (words, json!({ "kid": mean, "kid_std": std, "kid_std_error": kid.std_error(), "kid_subsets": count }))
        }
        (Measure::Is, Side::Rows(model), _) => {
            let score = scores::inception_score(Rows::new(&model, widths.logits)?, scores::IS_SPLITS)?;
            let words = format!("is {:.4} ± {:.4} (over {} splits)", score.mean, score.std, score.count);
            (words, json!({ "is": score.mean, "is_std": score.std }))
        }
        (Measure::Pr, Side::Rows(model), Some(Side::Rows(data))) => {
            let found = scores::cover(Rows::new(&model, widths.pooled)?, Rows::new(data, widths.pooled)?)?;
            let scores::Cover { precision, recall, density, coverage } = found;
            let words =
                format!("precision {precision:.4}  recall {recall:.4}  density {density:.4}  coverage {coverage:.4}");
            let found = json!({ "precision": precision, "recall": recall, "density": density, "coverage": coverage });
            (words, found)
        }
        // each measure keeps on both sides what it needs
        _ => return Err(Failure::new("this measure has nothing to be computed from").into()),
    })
}
