//! `ddpm export`: a model as a folder that diffusers loads.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use ddpm_nn::diffusers;
use ddpm_train::model::Trained;
use serde_json::json;

use super::studio::weights;
use crate::{
    args::ExportArgs,
    failure::{Explain, Failure},
    output::Output,
};

pub(super) fn run(args: &ExportArgs) -> Result<()> {
    let output = Output::new(args.talk);
    let taken = fs::read_dir(&args.out).is_ok_and(|mut entries| entries.next().is_some()) || args.out.is_file();
    if taken {
        return Err(Failure::new("there is something of this name already")
            .place(args.out.display())
            .next("choose another --out, or remove it")
            .into());
    }
    let which = weights(args.weights);
    let model = Trained::load(&args.model, which).at(args.model.display())?;
    for note in &model.notes {
        output.note(note);
    }
    let (config, bytes) = diffusers::export(&model.unet, &model.parameters)?;
    let scheduler = model.scheduler.to_json().at(args.model.display())?;
    if model.scheduler.options.self_conditioning {
        output.note("this network is shown what it saw in the step before, which no pipeline of diffusers does");
    }
    let index = json!({
        "_class_name": "DDPMPipeline",
        "_diffusers_version": ddpm_nn::config::DIFFUSERS_VERSION,
        "scheduler": ["diffusers", model.scheduler.class.name()],
        "unet": ["diffusers", ddpm_nn::config::DIFFUSERS_CLASS],
    });
    let index = format!("{index:#}\n");
    let mut files: Vec<(&str, &[u8])> = vec![
        ("unet/config.json", config.as_bytes()),
        ("unet/diffusion_pytorch_model.safetensors", &bytes),
        ("scheduler/scheduler_config.json", scheduler.as_bytes()),
        // Last: a folder with an index is whole.
        ("model_index.json", index.as_bytes()),
    ];
    let names = format!("{:#}\n", json!(model.classes));
    if !model.classes.is_empty() {
        files.insert(0, ("class_names.json", names.as_bytes()));
    }
    for (name, bytes) in &files {
        let path = args.out.join(name);
        write(&path, bytes).at(path.display())?;
        output.result(&path.display().to_string())?;
    }
    output.json(&json!({
        "out": args.out, "files": files.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "parameters": model.unet.layout().count(), "weights": which.to_string(), "model": model.hash,
    }))?;
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).context("cannot make the folder")?;
    }
    fs::write(path, bytes).context("cannot write this file")
}
