//! Table 1: how good one model is.

use std::ops::Range;

use anyhow::{Context, Result};
use ddpm_train::data::DataSet;
use serde_json::{Value, json};

use super::{
    super::{
        eval::{judge::Judge, nll},
        machine::{Machinery, on_device},
        studio::{Ready, Studio},
    },
    Work,
    kept::Kept,
    paper, scale,
    scoring::{Score, Scorer, data_of},
    sheet::{Sheet, cell, spread},
};

pub(super) fn make(work: &Work<'_>) -> Result<()> {
    let place = work.model()?;
    let (ready, device) = Ready::open(&place, &work.how(), &work.args.machine, work.output)?;
    let scale = scale(work, &ready);
    on_device!(device, device => {
        let studio = ready.on(device)?;
        let data = data_of(work, &place, &studio)?;
        measure(work, &studio, &data, &scale)
    })
}

fn measure<B: Machinery>(work: &Work<'_>, studio: &Studio<B>, data: &DataSet, scale: &str) -> Result<()> {
    let judge = Judge::open(studio, work.args.features.as_deref())?;
    let mut scorer = Scorer::new(work, Kept::open(&work.folder.join("table1-kept.json")));
    let model = scorer.model("model", &judge, data)?;
    let held_out = scorer.held_out(&judge, data)?;
    let mut bits = |key: &str, part| Bits::measured(work, &mut scorer.kept, key, studio, data, part);
    let test = bits("likelihood of held-out pictures", data.heldout_indices())?;
    let train = bits("likelihood of training pictures", data.train_indices())?;

    let mut notes = vec![scorer.about(&judge, data)];
    if let (Some(test), Some(train)) = (test, train) {
        notes.push(test.beside(train));
    }
    let sheet = Sheet {
        title: format!("Table 1 of Ho et al. 2020, and {scale}"),
        columns: vec!["model", "Inception score", "FID", "bits per dimension: test (train)"],
        rows: vec![
            of_paper("paper, CIFAR-10, L, fixed Σ", &paper::EPS_L),
            of_paper("paper, CIFAR-10, L_simple", &paper::EPS_SIMPLE),
            row(
                &format!("here, {scale}"),
                Score::cells(model),
                bits_cell(test.map(|b| b.mean), train.map(|b| b.mean), 3),
            ),
            row("held-out pictures themselves", Score::cells(held_out), String::new()),
        ],
        notes,
    };
    let numbers = json!({
        "model": model.map(Score::to_json), "held_out": held_out.map(Score::to_json), "test": test.map(Bits::to_json),
        "train": train.map(Bits::to_json), "n": work.args.n, "features": judge.network.name(), "drawn": studio.about(),
    });
    sheet.publish(work, scale, numbers)
}

fn row(name: &str, [is, fid]: [String; 2], bits: String) -> Vec<String> {
    vec![name.to_owned(), is, fid, bits]
}

fn of_paper(name: &str, known: &paper::Row) -> Vec<String> {
    let (test, train) = known.bits.unzip();
    row(name, [spread(known.is), cell(known.fid, 2)], bits_cell(test, train, 2))
}

fn bits_cell(test: Option<f64>, train: Option<f64>, digits: usize) -> String {
    format!("≤ {} ({})", cell(test, digits), cell(train, digits))
}

/// Bits per dimension of some pictures.
#[derive(Clone, Copy)]
struct Bits {
    mean: f64,
    std_error: f64,
    n: usize,
}

impl Bits {
    /// Of the first pictures of a part of the data; nothing of no picture.
    fn measured<B: Machinery>(
        work: &Work<'_>,
        kept: &mut Kept,
        key: &str,
        studio: &Studio<B>,
        data: &DataSet,
        part: Range<usize>,
    ) -> Result<Option<Self>> {
        let part = part.start..part.end.min(part.start + work.args.nll_count as usize);
        let n = part.len();
        if n == 0 {
            return Ok(None);
        }
        let asked = json!({ "model": studio.model.hash, "data": data.hash(), "n": n, "seed": studio.seed() });
        let found = kept.or_find(key, &asked, || {
            let found = nll::measure(work.output, studio, data, part, &|| work.watch())?;
            Ok(Self { mean: found.terms.total(), std_error: found.std_error, n }.to_json())
        })?;
        let mean = found["bits_per_dim"].as_f64().context("a likelihood that was kept is no number")?;
        // of one picture there is none
        Ok(Some(Self { mean, std_error: found["std_error"].as_f64().unwrap_or(f64::NAN), n }))
    }

    fn to_json(self) -> Value {
        json!({ "bits_per_dim": self.mean, "std_error": self.std_error, "n": self.n })
    }

    /// What held-out pictures cost more than training pictures.
    fn beside(self, train: Self) -> String {
        let gap = self.mean - train.mean;
        let order = if gap >= 0.0 {
            "as in the paper, where it is at most 0.03"
        } else {
            "unlike in the paper, where it is more"
        };
        format!(
            "the bound of {} held-out and {} training pictures, standard errors {:.3} and {:.3}: held out costs {gap:+.3} bits per \
             dimension, {order}",
            self.n, train.n, self.std_error, train.std_error
        )
    }
}
