//! `ddpm info`: what a model, a picture or a preset is.

use std::path::Path;

use anyhow::Result;
use ddpm_nn::UNetConfig;
use ddpm_tensor::{Cpu, CpuOptions};
use ddpm_train::{
    memory::{self, Memory},
    model::Description,
    presets,
    run::Model,
};
use serde_json::{Value, json};

use crate::{
    args::InfoArgs,
    failure::{Explain, Failure},
    output::Output,
    picture::png,
    progress::{bytes, thousands},
};

/// Images in memory at once for which memory is told.
const AT_ONCE: usize = 16;

pub(super) fn run(args: &InfoArgs) -> Result<()> {
    let output = Output::new(args.talk);
    match (&args.preset, &args.path) {
        (Some(name), _) => preset(output, name, args.batch),
        (None, Some(path)) if path.is_file() => picture(output, path),
        (None, Some(path)) => model(output, path, args.batch),
        (None, None) => Err(Failure::usage("a model, a picture or --preset is needed").into()),
    }
}

fn preset(output: Output, name: &str, batch: Option<u64>) -> Result<()> {
    let preset = presets::find(name).at("--preset")?;
    let settings = preset.settings();
    let (size, channels) = (settings.data.size, settings.data.channels);
    let config = settings.unet(channels, size.height(), size.width(), None)?;
    let about = network(&config, batch)?;
    output.result(&format!("preset      {name}: {}", preset.about))?;
    tell_network(output, &config, &about)?;
    let train = &settings.train;
    output.result(&format!("training    {} steps of {}", thousands(train.steps), train.batch))?;
    if let Some(needs) = preset.needs {
        output.result(&format!("data        --data PATH: {needs}"))?;
    }
    output.json(&json!({
        "kind": "preset", "name": name, "about": preset.about, "network": about,
        "settings": serde_json::to_value(&settings)?,
    }))?;
    Ok(())
}

fn picture(output: Output, path: &Path) -> Result<()> {
    let text = png::read_text(path)
        .at(path.display())
        .next("info reads PNG pictures, runs, checkpoints and diffusers folders")?;
    let about = text.iter().find(|(keyword, _)| keyword == "ddpm");
    let about: Option<Value> = about.and_then(|(_, text)| serde_json::from_str(text).ok());
    let Some(Value::Object(about)) = about else {
        return Err(Failure::new("this picture does not say what it was made with")
            .place(path.display())
            .next("pictures made by ddpm sample do, unless another program has saved them anew")
            .into());
    };
    for (key, value) in &about {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        output.result(&format!("{key:<11} {text}"))?;
    }
    output.json(&json!({ "kind": "picture", "made_with": about }))?;
    Ok(())
}

fn model(output: Output, path: &Path, batch: Option<u64>) -> Result<()> {
    let model = Model::find(path).at(path.display())?;
    let description = Description::of(&model).at(path.display())?;
    for note in &description.notes {
        output.note(note);
    }
    let config = &description.config;
    let about = network(config, batch)?;
    let (kind, state) = if let Model::Checkpoint { checkpoint, run, .. } = &model {
        let state = checkpoint.state();
        output.result(&format!(
            "checkpoint  step {} of {}{}",
            thousands(state.step),
            checkpoint.folder().display(),
            if run.is_some() { "" } else { " (outside a run)" }
        ))?;
        output.result(&format!(
            "            {} pictures seen, made with {} ({})",
            thousands(state.images),
            state.isa,
            state.precision
        ))?;
        output.result(&format!("            {}, BLAKE3 {}", bytes(checkpoint.bytes()), checkpoint.hash()))?;
        (
            "checkpoint",
            json!({ "step": state.step, "images": state.images, "hash": checkpoint.hash(),
                "isa": state.isa, "precision": state.precision, "data": state.data, "bytes": checkpoint.bytes() }),
        )
    } else {
        output.result(&format!("diffusers   {}", path.display()))?;
        ("diffusers", Value::Null)
    };
    tell_network(output, config, &about)?;
    let (schedule, options) = (&description.scheduler.schedule, &description.scheduler.options);
    let clip = options.clip.map_or_else(|| "no clipping".to_owned(), |clip| format!("clipped to ±{clip}"));
    output.result(&format!(
        "diffusion   {} over {} time steps, predicts {}, variance {}, {clip}",
        schedule.schedule.name(),
        schedule.timesteps,
        options.prediction.name(),
        options.variance.name()
    ))?;
    if !description.classes.is_empty() {
        output.result(&format!("classes     {}", description.classes.join(", ")))?;
    }
    if let Some(settings) = &description.settings {
        let (optimiser, train) = (&settings.optimiser, &settings.train);
        output.result(&format!(
            "training    {} steps of {}, {} at {:e}, EMA {}, seed {}",
            thousands(train.steps),
            train.batch,
            optimiser.kind.name(),
            optimiser.lr,
            settings.ema.decay,
            train.seed
        ))?;
    }
    output.json(&json!({
        "kind": kind, "path": path, "state": state, "network": about, "classes": description.classes,
        // None where diffusers has no word for it.
        "scheduler": description.scheduler.to_json().ok().and_then(|text| serde_json::from_str::<Value>(&text).ok()),
        "settings": description.settings.as_ref().map(serde_json::to_value).transpose()?,
    }))?;
    Ok(())
}

/// A network in numbers; those of memory for `batch` pictures at once by a rehearsal of a step, otherwise by estimate.
fn network(config: &UNetConfig, batch: Option<u64>) -> Result<Value> {
    let side = config.size_multiple();
    let (height, width) = config.sample_size.map_or((side, side), |size| (size.height(), size.width()));
    config.validate(height, width)?;
    let memory = Memory::of(config, height, width)?;
    let at_once = batch.map_or(AT_ONCE, |batch| batch as usize);
    let rehearsal = || Cpu::rehearsal(CpuOptions::default());
    let (training, sampling) = match batch {
        None => (memory.training(at_once), memory.sampling(at_once)),
        Some(_) => (
            memory::of_training(&rehearsal()?, config, [height, width], at_once)?,
            memory::of_sampling(&rehearsal()?, config, [height, width], at_once)?,
        ),
    };
    Ok(json!({
        "parameters": memory.parameters,
        "height": config.sample_size.map(|size| size.height()),
        "width": config.sample_size.map(|size| size.width()),
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "training_bytes": training,
        "sampling_bytes": sampling,
        "pictures_at_once": at_once,
        "config": serde_json::from_str::<Value>(&config.to_json())?,
    }))
}

fn tell_network(output: Output, config: &UNetConfig, about: &Value) -> Result<()> {
    let number = |key: &str| about[key].as_u64().unwrap_or_default();
    let size =
        config.sample_size.map_or_else(|| "any size".to_owned(), |size| format!("{}x{}", size.height(), size.width()));
    let attention: Vec<String> = config
        .down_block_types
        .iter()
        .enumerate()
        .filter(|(_, block)| **block == ddpm_nn::config::DownBlock::Attention)
        .map(|(level, _)| level.to_string())
        .collect();
    let attention = if attention.is_empty() { "none".to_owned() } else { format!("level {}", attention.join(", ")) };
    output.result(&format!(
        "network     {} parameters; {size}, {} channels in, {} out",
        thousands(number("parameters")),
        config.in_channels,
        config.out_channels
    ))?;
    output.result(&format!(
        "            levels of {:?} channels, {} blocks each, {} groups, attention: {attention}",
        config.block_out_channels, config.layers_per_block, config.norm_num_groups
    ))?;
    output.result(&format!(
        "memory      about {} to train, {} to sample ({} pictures at once)",
        bytes(number("training_bytes")),
        bytes(number("sampling_bytes")),
        number("pictures_at_once")
    ))?;
    Ok(())
}
