//! `ddpm nearest`: has a model learned a distribution, or its examples?

use anyhow::Result;
use ddpm_train::data::{self, Neighbours};
use serde_json::json;

use super::{
    classes::WithoutClass,
    drawing::{Begin, Film},
    machine::{Machinery, on_device},
    model_data,
    sample::{Form, make_place},
    studio::{Asked, Ready, Studio},
};
use crate::{
    args::NearestArgs,
    failure::{Explain, Failure},
    output::Output,
    picture::{
        grid::{self, Images},
        png,
    },
};

pub(super) fn run(args: &NearestArgs) -> Result<()> {
    let output = Output::new(args.talk);
    if let Some(out) = &args.out
        && Form::of(out)? != Form::Png
    {
        return Err(Failure::usage("the rows are a .png").place(out.display()).into());
    }
    let (ready, device) = Ready::open(&args.model, &args.how, &args.machine, output)?;
    on_device!(device, device => compare(args, output, &ready.on(device)?))
}

/// All that follows once the device is known.
fn compare<B: Machinery>(args: &NearestArgs, output: Output, studio: &Studio<B>) -> Result<()> {
    let image = studio.image()?;
    let data = model_data::open(&args.model, &studio.model, image, args.data.as_deref())?;
    if let Some(out) = &args.out {
        make_place(out, &Form::Png)?;
    }
    let [height, width, channels] = image;
    let (n, k) = (args.n as usize, (args.neighbours as usize).min(data.train_indices().len()));
    let labels = studio.classes(&args.how, WithoutClass::Turns)?.labels(n);
    let plan = studio.plan()?;
    let asked = Asked { begin: Begin::Seed, labels: labels.as_deref(), film: Film::None, columns: 1 };
    let drawn = studio.draw(&plan, image, n, asked)?;
    let found = data::nearest(&data, &drawn.values, k)?;

    if let Some(out) = &args.out {
        let len = height * width * channels;
        let mut values = Vec::with_capacity(n * (k + 1) * len);
        for (sample, neighbours) in drawn.values.chunks_exact(len).zip(&found) {
            values.extend_from_slice(sample);
            for &(index, _) in &neighbours.nearest {
                let start = values.len();
                values.resize(start + len, 0.0);
                data.image_f32(index, &mut values[start..])?;
            }
        }
        let images = Images { n: n * (k + 1), height, width, channels, values: &values };
        let mut about = studio.about();
        about["command"] = json!("nearest");
        png::write(out, &grid::rows_of(k + 1, images)?, &[("ddpm".to_owned(), about.to_string())]).at(out.display())?;
        output.result(&out.display().to_string())?;
    }
    for (i, neighbours) in found.iter().enumerate() {
        let listed: Vec<String> = neighbours.nearest.iter().map(|(index, d)| format!("{index} ({d:.3})")).collect();
        let copy = if neighbours.is_copy() { "  a copy" } else { "" };
        output.result(&format!("{i}: {}  closeness {:.2}{copy}", listed.join(", "), neighbours.closeness))?;
    }
    let copies = found.iter().filter(|neighbours| neighbours.is_copy()).count();
    if copies > 0 {
        output.note(&format!(
            "warning: {copies} of {n} samples are copies of training pictures (nearer than {} of the distance to the nearest 50)",
            Neighbours::COPY
        ));
    }
    let rows: Vec<_> = found
        .iter()
        .map(|n| {
            let (indices, distances): (Vec<_>, Vec<_>) = n.nearest.iter().copied().unzip();
            json!({ "indices": indices, "distances": distances, "closeness": n.closeness, "copy": n.is_copy() })
        })
        .collect();
    output.json(&json!({ "n": n, "copies": copies, "out": args.out, "samples": rows }))?;
    Ok(())
}
