//! What a run leaves: loss curve, pictures, a film, and one line for each file.

use std::{fs, path::Path};

use anyhow::Result;
use ddpm_kernels::Backend;
use ddpm_train::{
    checkpoint::{Weights, steps},
    run::RunDir,
    samplers::Guidance,
    settings::Settings,
    trainer::{FORWARDS_PER_STEP, Trainer, takes_too_long},
};
use serde_json::{Value, json};

use super::signals::Signals;
use crate::{
    commands::{
        curves::{Curves, smoothed},
        drawing::{Begin, Drawing, Film, batch_for},
    },
    failure::Explain,
    output::Output,
    picture::{
        film, grid,
        plot::{self, COLOURS, Series, Style},
        png,
    },
    progress::{Progress, duration},
};

/// Draws `loss.png`.
pub(super) fn curve(run: &RunDir, settings: &Settings) -> Result<()> {
    let curves = Curves::read(run)?;
    let loss = curves.get("loss");
    let series = |name: &str, points: &[_], colour, style| Series {
        name: name.to_owned(),
        points: points.to_vec(),
        colour,
        style,
    };
    let series = [
        series("loss", loss, COLOURS[0], Style::Faint),
        series("loss (smoothed)", &smoothed(loss), COLOURS[0], Style::Line),
        series("held out (ema)", curves.get("heldout_loss_ema"), COLOURS[1], Style::Dots),
    ];
    let name =
        Path::new(&settings.data.path).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let title = if name.is_empty() { settings.train.name.clone() } else { name };
    let path = run.root().join("loss.png");
    png::write(&path, &plot::draw(&title, "step", &series), &[]).at(path.display())
}

/// Draws `samples.png` and `denoising.gif` from the average's weights, unless both are there, or it would take longer than
/// the training did. `false` if a signal came meanwhile.
pub(super) fn pictures<B: Backend<Elem = f32>>(
    output: Output,
    trainer: &Trainer<B>,
    run: &RunDir,
    signals: &Signals,
) -> Result<bool> {
    let settings = trainer.settings();
    let (count, wanted) = (settings.preview.count, settings.preview.steps);
    let (still, moving) = (run.root().join("samples.png"), run.root().join("denoising.gif"));
    let newest = newest_checkpoint(run);
    let fresh = |path: &Path| path.is_file() && modified(path) >= newest.as_deref().and_then(modified);
    if count == 0 || (fresh(&still) && fresh(&moving)) {
        return Ok(true);
    }
    let curves = Curves::read(run)?;
    let trained = curves.seconds(settings);
    let speed = curves.median("images_per_s").unwrap_or(f64::INFINITY);
    let guidance = trainer.preview_guidance();
    let passes = Guidance::passes(guidance.as_ref());
    let time = (passes * count * wanted) as f64 / (FORWARDS_PER_STEP * speed);
    if takes_too_long(time, trained) {
        output.note(&format!(
            "no samples.png and denoising.gif: they would take about {}, longer than the {} of training; ddpm sample {} \
             --out samples.png makes some",
            duration(time),
            duration(trained),
            run.root().display()
        ));
        return Ok(true);
    }

    let plan = trainer.preview_plan()?;
    let (height, width) = trainer.data().size();
    let image = [height, width, trainer.data().channels()];
    let classes: Option<Vec<usize>> =
        trainer.data().classes().map(|classes| (0..count).map(|i| i % classes.len()).collect());
    let batch = batch_for(image);
    let drawing = Drawing {
        backend: trainer.backend(),
        unet: trainer.unet(),
        parameters: trainer.parameters(Weights::Ema),
        plan: &plan,
        image,
        seed: settings.train.seed,
        first: 0,
        batch,
        begin: Begin::Seed,
        classes: classes.as_deref(),
        guidance: guidance.as_ref(),
        weaker: Some((trainer.unet(), trainer.parameters(Weights::Early))),
        film: Film::Xt,
        columns: grid::columns(count),
    };
    let mut progress = Progress::new(output, "sampling", 0, (count.div_ceil(batch) * plan.steps.len()) as u64);
    let drawn = drawing.run(count, &mut |done, _| {
        progress.at(done, || format!("{count} pictures by {}", settings.preview.sampler));
        if signals.came() { Err(Stopped.into()) } else { Ok(()) }
    });
    progress.finish();
    let drawn = match drawn {
        Err(error) if error.is::<Stopped>() => return Ok(false),
        drawn => drawn.at(run.root().display())?,
    };
    let mut about = about_pictures(settings, Weights::Ema, trainer.steps_done(), count);
    about["class"] = json!(classes);
    about["model"] = json!(newest.as_deref().and_then(hash));
    let text = [("ddpm".to_owned(), about.to_string())];
    png::write(&still, &grid::grid(drawn.images(image))?, &text).at(still.display())?;
    film::write(&moving, &drawn.frames).at(moving.display())?;
    Ok(true)
}

/// What a run's own pictures say of themselves.
pub(super) fn about_pictures(settings: &Settings, weights: Weights, step: u64, count: usize) -> Value {
    let preview = &settings.preview;
    // away from earlier weights, once there are some
    let guided = weights == Weights::Ema && step >= settings.ema.early;
    json!({
        "sampler": preview.sampler, "steps": preview.steps, "levels": preview.levels.name(), "eta": preview.eta,
        "guidance": preview.guidance, "autoguidance": if guided { preview.autoguidance } else { 1.0 },
        "guidance_from": preview.guidance_from, "seed": settings.train.seed, "weights": weights.to_string(),
        "model_step": step, "index": [0, count.saturating_sub(1)], "program": concat!("ddpm ", env!("CARGO_PKG_VERSION")),
    })
}

/// Ends sampling when a signal came.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
struct Stopped;

/// The folder of a run's newest checkpoint.
pub(super) fn newest_checkpoint(run: &RunDir) -> Option<std::path::PathBuf> {
    let newest = *steps(&run.checkpoints()).ok()?.last()?;
    Some(run.checkpoints().join(ddpm_train::checkpoint::step_name(newest)))
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    fs::metadata(path).and_then(|data| data.modified()).ok()
}

fn hash(folder: &Path) -> Option<String> {
    ddpm_train::checkpoint::Checkpoint::open(folder).ok().map(|checkpoint| checkpoint.hash().to_owned())
}

/// One line for each file that the run has left, and the JSON.
pub(super) fn list(output: Output, run: &RunDir, done: u64) -> Result<()> {
    let curves = Curves::read(run)?;
    let checkpoint = newest_checkpoint(run);
    let root = run.root();
    let files = [
        (root.join("config.toml"), "every setting"),
        (root.join("metrics.jsonl"), "loss, learning rate and speed, step by step"),
        (root.join("loss.png"), "the loss curve"),
        (root.join("samples.png"), "pictures by the trained model"),
        (root.join("denoising.gif"), "how they came out of noise"),
        (root.join(super::report::FILE), "all of it on one page, for a browser"),
        (run.samples(), "pictures made while training"),
    ];
    let checkpoints =
        checkpoint.clone().into_iter().map(|path| (path, "the model: ddpm sample makes pictures with it"));
    let left: Vec<_> = files.into_iter().filter(|(path, _)| path.exists()).chain(checkpoints).collect();
    for (path, what) in &left {
        output.result(&format!("{}  {what}", path.display()))?;
    }
    let loss = curves.last_loss();
    if let Some((loss, lines)) = loss {
        output.result(&format!("loss {loss:.4} (mean of the last {lines} lines)"))?;
    }
    let paths: Vec<_> = left.iter().map(|(path, _)| path).collect();
    output.json(&json!({
        "run": root, "steps": done, "loss": loss.map(|(loss, _)| loss), "heldout_loss": curves.get("heldout_loss_ema").last().map(|(_, loss)| loss),
        "checkpoint": checkpoint, "files": paths,
    }))?;
    Ok(())
}
