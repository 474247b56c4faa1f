//! Table 2: what is predicted, and what is minimised.

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    super::{
        eval::judge::Judge,
        machine::{Machinery, on_device},
        studio::{Ready, Studio},
    },
    Work,
    kept::Kept,
    order::{Compared, differences},
    paper, scale,
    scoring::{Score, Scorer, data_of},
    sheet::{Sheet, cell, spread},
    training::{self, Outcome, Wanted},
};
use crate::failure::Failure;

/// A model of the table.
struct Row {
    /// Name of its folder.
    folder: &'static str,
    /// What is predicted.
    predicted: &'static str,
    /// What is minimised, with which variance.
    objective: &'static str,
    /// Its settings.
    set: [&'static str; 3],
    /// What the paper has.
    paper: paper::Row,
}

const ROWS: [Row; 6] = [
    Row {
        folder: "mean-vlb-learned",
        predicted: "μ̃",
        objective: "L, learned Σ",
        set: ["diffusion.prediction=mean", "diffusion.loss=vlb", "diffusion.variance=learned"],
        paper: paper::MEAN_L_LEARNED,
    },
    Row {
        folder: "mean-vlb-fixed",
        predicted: "μ̃",
        objective: "L, fixed Σ",
        set: ["diffusion.prediction=mean", "diffusion.loss=vlb", "diffusion.variance=fixed_large"],
        paper: paper::MEAN_L,
    },
    Row {
        folder: "mean-simple",
        predicted: "μ̃",
        objective: "‖μ̃ − μ̃_θ‖²",
        set: ["diffusion.prediction=mean", "diffusion.loss=l2", "diffusion.variance=fixed_large"],
        paper: paper::UNSTABLE,
    },
    Row {
        folder: "eps-vlb-learned",
        predicted: "ε",
        objective: "L, learned Σ",
        set: ["diffusion.prediction=eps", "diffusion.loss=vlb", "diffusion.variance=learned"],
        paper: paper::UNSTABLE,
    },
    Row {
        folder: "eps-vlb-fixed",
        predicted: "ε",
        objective: "L, fixed Σ",
        set: ["diffusion.prediction=eps", "diffusion.loss=vlb", "diffusion.variance=fixed_large"],
        paper: paper::EPS_L,
    },
    Row {
        folder: "eps-simple",
        predicted: "ε",
        objective: "‖ε − ε_θ‖² (L_simple)",
        set: ["diffusion.prediction=eps", "diffusion.loss=l2", "diffusion.variance=fixed_large"],
        paper: paper::EPS_SIMPLE,
    },
];

impl Row {
    fn name(&self) -> String {
        format!("{}, {}", self.predicted, self.objective)
    }
}

pub(super) fn make(work: &Work<'_>) -> Result<()> {
    if work.args.model.is_some() {
        let what = "table 2 compares models that it trains";
        return Err(Failure::usage(what).place("--model").next("leave it out, or name a preset").into());
    }
    let folder = work.folder.join("table2");
    // previews would take part of the time
    let set = |row: &Row| row.set.into_iter().chain(["preview.count=0"]).map(str::to_owned).collect();
    let wanted: Vec<_> = ROWS.iter().map(|row| Wanted { root: folder.join(row.folder), set: set(row) }).collect();
    let outcomes = training::all(work, &wanted)?;

    let mut scorer = Scorer::new(work, Kept::open(&folder.join("kept.json")));
    let mut found = Found::default();
    for (row, outcome) in ROWS.iter().zip(&outcomes) {
        match outcome {
            Outcome::Trained(run) => {
                let (ready, device) = Ready::open(run.root(), &work.how(), &work.args.machine, work.output)?;
                found.scale = scale(work, &ready);
                on_device!(device, device => score(work, &mut scorer, &mut found, row, &ready.on(device)?, run.root()))?;
            }
            Outcome::Diverged(why) => {
                found.scores.push(None);
                found.notes.push(format!("{}: {why}", row.name()));
            }
        }
    }
    found.sheet().publish(work, &found.scale, found.numbers(work))
}

/// What is known of all rows so far.
#[derive(Default)]
struct Found {
    scale: String,
    scores: Vec<Option<Score>>,
    held_out: Option<Score>,
    about: String,
    notes: Vec<String>,
}

fn score<B: Machinery>(
    work: &Work<'_>,
    scorer: &mut Scorer<'_>,
    found: &mut Found,
    row: &Row,
    studio: &Studio<B>,
    place: &std::path::Path,
) -> Result<()> {
    let judge = Judge::open(studio, work.args.features.as_deref())?;
    let data = data_of(work, place, studio)?;
    let score = scorer.model(row.folder, &judge, &data)?;
    if score.is_none() {
        found.notes.push(format!("{}: its pictures are infinite or no numbers", row.name()));
    }
    found.scores.push(score);
    found.held_out = scorer.held_out(&judge, &data)?;
    found.about = scorer.about(&judge, &data);
    Ok(())
}

impl Found {
    fn sheet(&self) -> Sheet {
        let mut rows = Vec::new();
        for (row, score) in ROWS.iter().zip(&self.scores) {
            let [is, fid] = Score::cells(*score);
            let known = [spread(row.paper.is), is, cell(row.paper.fid, 2), fid];
            rows.push([row.predicted, row.objective].map(str::to_owned).into_iter().chain(known).collect());
        }
        let [is, fid] = Score::cells(self.held_out);
        let names = ["", "held-out pictures themselves", "", &is, "", &fid];
        rows.push(names.map(str::to_owned).to_vec());
        let names: Vec<String> = ROWS.iter().map(Row::name).collect();
        let compared = |of_paper: fn(&paper::Row) -> Option<f64>, of_score: fn(&Score) -> f64| -> Vec<Compared<'_>> {
            let all = ROWS.iter().zip(&names).zip(&self.scores);
            all.map(|((row, name), score)| Compared {
                name,
                paper: of_paper(&row.paper),
                here: score.as_ref().map(of_score),
            })
            .collect()
        };
        let mut notes = vec!["one training of each from one seed".to_owned()];
        notes.extend((!self.about.is_empty()).then(|| self.about.clone()));
        notes.extend(self.notes.iter().cloned());
        notes.extend(differences("FID", true, &compared(|row| row.fid, |score| score.fid)));
        notes.extend(differences("Inception score", false, &compared(|row| row.is.map(|is| is.0), |score| score.is)));
        Sheet {
            title: format!("Table 2 of Ho et al. 2020, and {}", self.scale),
            columns: vec!["predicted", "minimised", "Inception score, paper", "here", "FID, paper", "here"],
            rows,
            notes,
        }
    }

    fn numbers(&self, work: &Work<'_>) -> Value {
        let rows: Vec<Value> = ROWS
            .iter()
            .zip(&self.scores)
            .map(|(row, score)| {
                json!({
                    "row": row.folder, "settings": row.set, "here": score.map(Score::to_json),
                    "paper": { "is": row.paper.is.map(|is| is.0), "is_std": row.paper.is.map(|is| is.1), "fid": row.paper.fid },
                })
            })
            .collect();
        json!({
            "rows": rows, "held_out": self.held_out.map(Score::to_json), "scale": self.scale, "n": work.args.n,
            "about": self.about,
        })
    }
}
