//! `ddpm eval fid|kid|is|pr|sfid`: a model's pictures against data, by the features of another network.

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufReader, BufWriter},
    ops::Range,
    path::Path,
};

use anyhow::{Context, Result};
use ddpm_train::{
    data::DataSet,
    eval::{
        self, Reference, ReferenceFile, Statistics,
        scores::{self, Rows, Spread},
    },
};
use serde_json::{Value, json};

use super::super::classes::WithoutClass;
use super::{
    Machinery, Studio,
    judge::{Judge, Side},
    reference,
};
use crate::{
    args::{EvalArgs, Measure},
    failure::{Explain, Failure},
    output::Output,
    picture::png::appear,
};

/// Pictures of the model where nobody says how many.
const COUNT: usize = 1000;

pub(super) fn run<B: Machinery>(args: &EvalArgs, output: Output, studio: &Studio<B>) -> Result<()> {
    let judge = Judge::open(studio, args.features.as_deref()).at(args.model.display())?;
    let data = match args.measure {
        Measure::Is => None,
        _ => Some(Asked { args, output, judge: &judge }.data()?),
    };
    let n = args.n.map_or(COUNT, |n| n as usize);
    let drawn = judge.drawn(&args.how, output, n, &[args.measure], &|| Ok(()))?;
    let model = drawn.into_iter().next().context("nothing was kept")?;
    let (mut words, mut found) = score(args, studio.seed(), &judge, &model, data.as_ref())?;
    if let Some(share) = agreement(args, studio, &judge, &model, n)? {
        let _ = write!(words, "  agreement {share:.4} (the share seen as the class it was drawn as)");
        found["agreement"] = json!(share);
    }
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

/// The data's side.
struct Data {
    name: String,
    n: usize,
    side: Side,
}

/// A judge with what was asked of it.
struct Asked<'a, B: Machinery> {
    args: &'a EvalArgs,
    output: Output,
    judge: &'a Judge<'a, B>,
}

impl<B: Machinery> Asked<'_, B> {
    /// The data's side: statistics from a file, or the features of its pictures.
    fn data(&self) -> Result<Data> {
        let (args, studio) = (self.args, self.judge.studio);
        let Some(path) = &args.reference else {
            let (data, part) = reference(args, studio)?;
            return self.measured(&data, part);
        };
        let file = File::open(path).context("cannot open the statistics").at(path.display())?;
        match ReferenceFile::read(BufReader::new(file)).at(path.display())? {
            ReferenceFile::Images => {
                let named = EvalArgs { data: Some(path.clone()), ..args.clone() };
                let (data, part) = reference(&named, studio)?;
                self.measured(&data, part)
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
            Some(about) if about.features_hash != self.judge.network.hash() => {
                let what = format!("these are statistics of other features: {}", about.features);
                Err(Failure::new(what).place(path.display()).next("--data PATH makes them anew").into())
            }
            _ => Ok(()),
        }
    }

    fn measured(&self, data: &DataSet, part: Range<usize>) -> Result<Data> {
        let n = part.len();
        // a file of statistics has both kinds
        let mut measures = vec![self.args.measure];
        if self.args.write_reference.is_some() {
            measures.extend([Measure::Fid, Measure::Sfid]);
        }
        let mut sides = self.judge.of_data(self.output, data, part, &measures)?.into_iter();
        let side = sides.next().context("nothing was kept")?;
        if let (Some(path), Some(Side::Statistics(pooled)), Some(Side::Statistics(placed))) =
            (&self.args.write_reference, sides.next(), sides.next())
        {
            self.write(path, n, &pooled, &placed)?;
            self.output.result(&path.display().to_string())?;
        }
        Ok(Data { name: data.path().display().to_string(), n, side })
    }

    fn write(&self, path: &Path, n: usize, pooled: &Statistics, placed: &Statistics) -> Result<()> {
        let about = Reference {
            features: self.judge.network.name().to_owned(),
            features_hash: self.judge.network.hash().to_owned(),
            resize: self.judge.network.resize().to_owned(),
            n,
        };
        appear(path, |file| Ok(eval::write_reference(BufWriter::new(file), pooled, Some(placed), &about)?))
            .at(path.display())
    }
}

/// How often the program's own classifier, whose classes are the digits, sees the class that a picture was drawn as.
fn agreement<B: Machinery>(
    args: &EvalArgs,
    studio: &Studio<B>,
    judge: &Judge<'_, B>,
    model: &Side,
    n: usize,
) -> Result<Option<f64>> {
    let (Measure::Is, None, Side::Rows(logits)) = (args.measure, &args.features, model) else { return Ok(None) };
    let digits = judge.network.widths().logits;
    let labels = studio.classes(&args.how, WithoutClass::Turns)?.labels(n);
    match labels.filter(|labels| studio.model.classes.len() == digits && labels.iter().all(|&label| label < digits)) {
        Some(labels) => Ok(Some(scores::agreement(Rows::new(logits, digits)?, &labels)?)),
        None => Ok(None),
    }
}

/// The score in words and as JSON.
fn score<B: Machinery>(
    args: &EvalArgs,
    seed: u64,
    judge: &Judge<'_, B>,
    model: &Side,
    data: Option<&Data>,
) -> Result<(String, Value)> {
    let widths = judge.network.widths();
    Ok(match (args.measure, model, data.map(|data| &data.side)) {
        (Measure::Fid | Measure::Sfid, model, Some(data)) => {
            let name = if args.measure == Measure::Fid { "fid" } else { "sfid" };
            let distance = Judge::<B>::distance(model, data)?;
            (format!("{name} {distance:.4}"), json!({ name: distance }))
        }
        (Measure::Kid, Side::Rows(model), Some(Side::Rows(data))) => {
            let (model, data) = (Rows::new(model, widths.pooled)?, Rows::new(data, widths.pooled)?);
            let kid = scores::kernel_distance(model, data, scores::KID_SUBSETS, scores::KID_SUBSET, seed)?;
            let Spread { mean, std, count } = kid;
            let words = format!("kid {mean:.6} (standard error {:.6}, {count} subsets)", kid.std_error());
            (words, json!({ "kid": mean, "kid_std": std, "kid_std_error": kid.std_error(), "kid_subsets": count }))
        }
        (Measure::Is, model, _) => {
            let score = judge.inception_score(model)?;
            let words = format!("is {:.4} ± {:.4} (over {} splits)", score.mean, score.std, score.count);
            (words, json!({ "is": score.mean, "is_std": score.std }))
        }
        (Measure::Pr, Side::Rows(model), Some(Side::Rows(data))) => {
            let found = scores::cover(Rows::new(model, widths.pooled)?, Rows::new(data, widths.pooled)?)?;
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
