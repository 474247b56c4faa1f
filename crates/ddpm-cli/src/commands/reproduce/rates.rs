//! Figure 5 and table 4: rate and distortion over the reverse process.

use std::ops::Range;

use anyhow::{Context, Result};
use ddpm_train::{
    data::DataSet,
    eval::{Likelihood, Terms},
};
use serde_json::{Value, json};

use super::{
    super::{
        eval::nll::{self, write_text},
        machine::{Machinery, on_device},
        studio::{Ready, Studio},
    },
    Work,
    kept::Kept,
    paper, scale,
    scoring::data_of,
    sheet::Sheet,
};
use crate::{
    failure::{Explain, Failure},
    picture::plot::{COLOURS, Chart, Panel, Scale, Series, Style},
};

/// What was measured with a model.
struct Measured {
    scale: String,
    likelihood: Likelihood,
}

/// The likelihood of held-out pictures, measured now or found again.
fn measured(work: &Work<'_>) -> Result<Measured> {
    let place = work.model()?;
    let (ready, device) = Ready::open(&place, &work.how(), &work.args.machine, work.output)?;
    let scale = scale(work, &ready);
    let likelihood = on_device!(device, device => {
        let studio = ready.on(device)?;
        let data = data_of(work, &place, &studio)?;
        likelihood(work, &studio, &data)
    })?;
    Ok(Measured { scale, likelihood })
}

fn likelihood<B: Machinery>(work: &Work<'_>, studio: &Studio<B>, data: &DataSet) -> Result<Likelihood> {
    let part = unseen(data)?;
    let part = part.start..part.end.min(part.start + work.args.nll_count as usize);
    let asked = json!({ "model": studio.model.hash, "data": data.hash(), "n": part.len(), "seed": studio.seed() });
    let mut kept = Kept::open(&work.folder.join("rates-kept.json"));
    let found = kept.or_find("likelihood", &asked, || {
        Ok(to_json(&nll::measure(work.output, studio, data, part, &|| work.watch())?))
    })?;
    of_json(&found).context("what was kept is no likelihood").at("rates-kept.json").next("remove it to measure anew")
}

/// Held-out pictures, or all of data of which none are held out.
fn unseen(data: &DataSet) -> Result<Range<usize>> {
    let held_out = data.heldout_indices();
    let part = if held_out.is_empty() { 0..data.count() } else { held_out };
    if part.is_empty() {
        return Err(Failure::new("the data hold no pictures").place(data.path().display()).into());
    }
    Ok(part)
}

fn to_json(found: &Likelihood) -> Value {
    let Terms { prior, kl, decoder, decoder_exact, eps_mse, x_0_mse } = &found.terms;
    json!({
        "n": found.n, "std_error": found.std_error, "prior": prior, "decoder": decoder, "decoder_exact": decoder_exact, "kl": kl,
        "eps_mse": eps_mse, "x_0_mse": x_0_mse,
    })
}

fn of_json(value: &Value) -> Option<Likelihood> {
    let number = |key: &str| value[key].as_f64();
    let list = |key: &str| value[key].as_array()?.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>();
    let terms = Terms {
        prior: number("prior")?,
        kl: list("kl")?,
        decoder: number("decoder")?,
        decoder_exact: number("decoder_exact")?,
        eps_mse: list("eps_mse")?,
        x_0_mse: list("x_0_mse")?,
    };
    let same = terms.kl.len() == terms.eps_mse.len() && terms.kl.len() == terms.x_0_mse.len();
    // of one picture there is no error
    let std_error = number("std_error").unwrap_or(f64::NAN);
    (same && !terms.kl.is_empty()).then_some(Likelihood { n: value["n"].as_u64()? as usize, terms, std_error })
}

/// A place on the curve by the paper's reverse process time, T − t + 1 with t from 1, which is T − t with ours from 0.
struct Place {
    time: f64,
    rate: f64,
    rmse: f64,
}

/// From x_T on: time rises.
fn places(found: &Likelihood) -> Vec<Place> {
    let total = found.terms.kl.len();
    let place =
        |point: ddpm_train::eval::Point| Place { time: (total - point.t) as f64, rate: point.rate, rmse: point.rmse };
    found.curve().into_iter().map(place).collect()
}

/// The paper's, its 1000 steps stretched to so many.
fn of_paper(total: usize) -> Vec<Place> {
    let place =
        |&(time, rate, rmse): &(u32, f64, f64)| Place { time: f64::from(time) * total as f64 / 1000.0, rate, rmse };
    paper::RATES.iter().rev().map(place).collect()
}

/// The three panels of figure 5, as SVG and PNG, and the numbers as CSV.
pub(super) fn figure(work: &Work<'_>) -> Result<()> {
    let Measured { scale, likelihood } = measured(work)?;
    let (here, paper) = (places(&likelihood), of_paper(likelihood.terms.kl.len()));
    let panel = |name: &str, x_name, of: fn(&Place) -> (f64, f64)| {
        let series = |name: &str, places: &[Place], colour: usize, style| Series {
            name: name.to_owned(),
            points: nll::spaced(places, 250).map(of).collect(),
            colour: COLOURS[colour],
            style,
        };
        Panel {
            name: name.to_owned(),
            scale: Scale::Linear,
            x_name,
            series: vec![
                series("here", &here, 0, Style::Line),
                series("Ho et al. 2020, CIFAR-10", &paper, 1, Style::Dots),
            ],
        }
    };
    let panels = [
        panel("distortion (RMSE, 0 to 255)", None, |place| (place.time, place.rmse)),
        panel("rate (bits/dim)", None, |place| (place.time, place.rate)),
        panel("distortion (RMSE, 0 to 255)", Some("rate (bits/dim)"), |place| (place.rate, place.rmse)),
    ];
    let chart = Chart {
        title: &scale,
        x_name: "reverse process steps (T - t)",
        panels: &panels,
        columns: 3,
        panel: (420.0, 340.0),
    };
    let at = |end: &str| work.folder.join(format!("{}.{end}", work.part.name));
    write_text(&at("csv"), &nll::csv(&likelihood, &likelihood.curve()))?;
    for end in ["svg", "png"] {
        chart.write(&at(end)).at(at(end).display())?;
    }
    for end in ["svg", "png", "csv"] {
        work.output.result(&at(end).display().to_string())?;
    }
    work.tell(&scale)?;
    let notes = notes(&likelihood);
    for note in &notes {
        work.output.result(note)?;
    }
    let end = here.last().context("there are no time steps")?;
    Ok(work.output.json(&json!({
        "name": work.part.name, "out": at("svg"), "paper": work.part.paper, "here": work.part.here, "n": likelihood.n,
        "bits_per_dim": likelihood.terms.total(), "rate": end.rate, "distortion_bits": likelihood.terms.decoder,
        "rmse": end.rmse, "notes": notes,
    }))?)
}

/// The ten times of table 4, evenly over so many steps, the last first.
fn ten_times(total: usize) -> impl Iterator<Item = usize> {
    let count = paper::RATES.len();
    (1..=count).rev().map(move |i| (total * i).div_ceil(count))
}

/// Table 4.
pub(super) fn table(work: &Work<'_>) -> Result<()> {
    let Measured { scale, likelihood } = measured(work)?;
    let here = places(&likelihood);
    let total = here.len();
    let mut rows = Vec::new();
    let mut numbers = Vec::new();
    for (&(_, rate, rmse), time) in paper::RATES.iter().zip(ten_times(total)) {
        let place = &here[time - 1];
        let five = |value: f64| format!("{value:.5}");
        rows.push(vec![time.to_string(), five(rate), five(place.rate), five(rmse), five(place.rmse)]);
        numbers.push(json!({
            "time": time, "rate": place.rate, "rmse": place.rmse, "paper": { "rate": rate, "rmse": rmse },
        }));
    }
    let sheet = Sheet {
        title: format!("Table 4 of Ho et al. 2020, and {scale}"),
        columns: vec![
            "reverse process time (T − t + 1)",
            "rate (bits/dim), paper",
            "here",
            "distortion (RMSE, 0 to 255), paper",
            "here",
        ],
        rows,
        notes: notes(&likelihood),
    };
    sheet.publish(work, &scale, json!({ "rows": numbers, "n": likelihood.n, "scale": scale }))
}

/// Rate and distortion in all, and where the curve does not run as the paper's.
fn notes(found: &Likelihood) -> Vec<String> {
    let here = places(found);
    let (rate, distortion) = (here.last().map_or(0.0, |place| place.rate), found.terms.decoder);
    let rmse = here.last().map_or(0.0, |place| place.rmse);
    let (_, paper_rate, paper_rmse) = paper::RATES[0];
    let share = distortion / (rate + distortion);
    let paper_share = paper::DISTORTION_BITS / (paper_rate + paper::DISTORTION_BITS);
    let text = format!(
        "{} pictures: rate {rate:.3} and distortion {distortion:.3} bits/dim, RMSE {rmse:.3}; the paper: {paper_rate:.2}, {:.2}, \
         {paper_rmse:.2}; distortion is {:.0} % of all bits, there {:.0} %",
        found.n,
        paper::DISTORTION_BITS,
        100.0 * share,
        100.0 * paper_share,
    );
    let mut notes = vec![text];
    if share < 0.5 {
        notes.push("unlike in the paper, less than half of the bits describe distortion".to_owned());
    }
    let ten: Vec<&Place> = ten_times(here.len()).map(|time| &here[time - 1]).collect();
    let rises = ten.windows(2).filter(|pair| pair[0].rmse > pair[1].rmse).count();
    notes.push(match rises {
        0 => "over the ten times of table 4 distortion falls throughout, as in the paper".to_owned(),
        some => format!("unlike in the paper, distortion rises {some} times over the ten times of table 4"),
    });
    notes
}
