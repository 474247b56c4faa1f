//! Inception score and Fréchet distance of models, and of held-out pictures beside them.

use anyhow::{Context, Result};
use ddpm_tensor::{Cpu, CpuOptions};
use ddpm_train::{
    data::DataSet,
    presets,
    settings::{Layers, Settings},
};
use serde_json::{Value, json};

use super::{
    super::{
        eval::judge::{Judge, Side, network},
        machine::Machinery,
        model_data,
        studio::Studio,
    },
    Work,
    kept::Kept,
    sheet::{cell, spread},
};
use crate::{
    args::{Measure, ReproduceArgs},
    failure::{Explain, is_not_finite},
};

/// What is asked of pictures.
const MEASURES: [Measure; 2] = [Measure::Fid, Measure::Is];
/// Fewer pictures cannot be split for an Inception score.
const LEAST: usize = 10;

/// Refuses pictures that no network can judge, before anything is trained.
pub(super) fn check(args: &ReproduceArgs) -> Result<()> {
    if args.model.is_some() {
        return Ok(());
    }
    let data = preset(args)?.data;
    let image = [data.size.height(), data.size.width(), data.channels];
    let cpu = Cpu::<f32>::new(CpuOptions::default()).at("starting the CPU's threads")?;
    if image.contains(&0) {
        // only the data will tell
        return Ok(());
    }
    network(&cpu, args.features.as_deref(), image).at(format!("the pictures of {}", args.preset))?;
    Ok(())
}

/// The settings that models are trained with.
fn preset(args: &ReproduceArgs) -> Result<Settings> {
    let mut layers = Layers::new();
    for text in &args.set {
        layers.set(text).at("--set")?;
    }
    layers.over(&presets::find(&args.preset).at("--preset")?.settings()).at("--set")
}

/// What pictures have been given.
#[derive(Clone, Copy)]
pub(super) struct Score {
    /// Inception score.
    pub(super) is: f64,
    /// Its standard deviation over splits.
    pub(super) is_std: f64,
    /// Fréchet distance to the training pictures.
    pub(super) fid: f64,
}

impl Score {
    pub(super) fn to_json(self) -> Value {
        json!({ "is": self.is, "is_std": self.is_std, "fid": self.fid })
    }

    /// Inception score and Fréchet distance as tables show them; dashes where there are none.
    pub(super) fn cells(score: Option<Self>) -> [String; 2] {
        [spread(score.map(|score| (score.is, score.is_std))), cell(score.map(|score| score.fid), 2)]
    }

    fn of_json(value: &Value) -> Option<Self> {
        let number = |key: &str| value[key].as_f64();
        Some(Self { is: number("is")?, is_std: number("is_std")?, fid: number("fid")? })
    }
}

/// Scores with one feature network against one data set, kept in one file.
pub(super) struct Scorer<'a> {
    work: &'a Work<'a>,
    /// Where results are kept.
    pub(super) kept: Kept,
    /// Statistics of the training pictures, once they are needed.
    data: Option<Side>,
}

impl<'a> Scorer<'a> {
    pub(super) fn new(work: &'a Work<'a>, kept: Kept) -> Self {
        Self { work, kept, data: None }
    }

    /// The scores of a model's pictures; nothing if they are no numbers.
    pub(super) fn model<B: Machinery>(
        &mut self,
        key: &str,
        judge: &Judge<'_, B>,
        data: &DataSet,
    ) -> Result<Option<Score>> {
        let (work, studio, n) = (self.work, judge.studio, self.work.args.n as usize);
        let mut asked = asked(judge, data);
        (asked["model"], asked["n"], asked["steps"]) = (json!(studio.model.hash), json!(n), json!(studio.steps()));
        if let Some(found) = self.kept.get(key, &asked) {
            return Ok(Score::of_json(found));
        }
        let found = match judge.drawn(&work.how(), work.output, n, &MEASURES, &|| work.watch()) {
            Ok(sides) => Some(self.score(judge, data, &sides)?),
            Err(error) if is_not_finite(&error) => None,
            Err(error) => return Err(error),
        };
        self.kept.put(key, &asked, &found.map_or_else(|| json!({ "unstable": true }), Score::to_json))?;
        Ok(found)
    }

    /// The scores of as many held-out pictures; nothing if there are too few.
    pub(super) fn held_out<B: Machinery>(&mut self, judge: &Judge<'_, B>, data: &DataSet) -> Result<Option<Score>> {
        let part = data.heldout_indices();
        let part = part.start..part.end.min(part.start + self.work.args.n as usize);
        if part.len() < LEAST {
            return Ok(None);
        }
        let mut asked = asked(judge, data);
        asked["n"] = json!(part.len());
        if let Some(found) = self.kept.get("held out", &asked) {
            return Ok(Score::of_json(found));
        }
        let sides = judge.of_data(self.work.output, data, part, &MEASURES)?;
        let found = self.score(judge, data, &sides)?;
        self.kept.put("held out", &asked, &found.to_json())?;
        Ok(Some(found))
    }

    fn score<B: Machinery>(&mut self, judge: &Judge<'_, B>, data: &DataSet, sides: &[Side]) -> Result<Score> {
        if self.data.is_none() {
            let sides = judge.of_data(self.work.output, data, data.train_indices(), &[Measure::Fid])?;
            self.data = sides.into_iter().next();
        }
        let [of_fid, of_is] = sides else { anyhow::bail!("the scores have no sides") };
        let fid = Judge::<B>::distance(of_fid, self.data.as_ref().context("there are no training pictures")?)?;
        let is = judge.inception_score(of_is)?;
        Ok(Score { is: is.mean, is_std: is.std, fid })
    }

    /// What the scores were made with, in a line.
    pub(super) fn about<B: Machinery>(&self, judge: &Judge<'_, B>, data: &DataSet) -> String {
        format!(
            "{} pictures by ddpm in {} steps, against {} training pictures; features: {}, on a scale of their own where they are \
             not Inception-v3's",
            self.work.args.n,
            judge.studio.steps(),
            data.train_indices().len(),
            judge.network.name(),
        )
    }
}

fn asked<B: Machinery>(judge: &Judge<'_, B>, data: &DataSet) -> Value {
    json!({ "features": judge.network.hash(), "data": data.hash(), "seed": judge.studio.seed() })
}

/// The data of a model.
pub(super) fn data_of<B: Machinery>(work: &Work<'_>, place: &std::path::Path, studio: &Studio<B>) -> Result<DataSet> {
    model_data::open(place, &studio.model, studio.image()?, work.args.data.as_deref())
}
