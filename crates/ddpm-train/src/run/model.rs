//! MODEL: a run's directory, one of its checkpoints, or a diffusers folder.

use std::fs;
use std::path::{Path, PathBuf};

use super::{RunDir, RunError};
use crate::checkpoint::{self, Checkpoint, STATE};
use crate::error::Error;

/// What a path that was given as a model turned out to be.
#[derive(Debug)]
#[non_exhaustive]
pub enum Model {
    /// A checkpoint: the one given, or the newest sound one of the run given.
    Checkpoint {
        /// The checkpoint; its tensors have been verified if it was looked for in a run.
        checkpoint: Box<Checkpoint>,
        /// The run it belongs to, if it lies in one.
        run: Option<RunDir>,
        /// One line, if a newer checkpoint had to be passed over.
        report: Option<String>,
    },
    /// A folder that diffusers wrote.
    Diffusers(DiffusersFolder),
}

/// The files of a diffusers folder; none of them has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffusersFolder {
    /// The network's `config.json`.
    pub config: PathBuf,
    /// The network's `diffusion_pytorch_model.safetensors`.
    pub weights: PathBuf,
    /// `scheduler_config.json`, if there is one.
    pub scheduler: Option<PathBuf>,
    /// `class_names.json`, if there is one: `ddpm export` writes it.
    pub class_names: Option<PathBuf>,
}

/// Stem of the file of weights in a diffusers folder.
const WEIGHTS_STEM: &str = "diffusion_pytorch_model";
/// Name of the scheduler's settings.
const SCHEDULER: &str = "scheduler_config.json";
/// Name of the list of classes.
const CLASS_NAMES: &str = "class_names.json";

impl Model {
    /// Finds out what a path is: a run's directory (or its `checkpoints`), a checkpoint, or a diffusers folder (a
    /// pipeline, a folder that only holds `unet/`, `unet/` itself, or an old one with all files at its root).
    ///
    /// # Errors
    /// [`RunError::NotAModel`] says what was looked for; [`RunError::NoCheckpoint`] for a run before its first;
    /// [`RunError::Pickle`] for weights in `.bin` only; and what reading a checkpoint returns.
    pub fn find(path: &Path) -> Result<Self, Error> {
        let not_a_model = |reason| RunError::NotAModel { path: path.to_owned(), reason };
        match fs::metadata(path) {
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(not_a_model("there is nothing of that name").into());
            }
            Err(source) => return Err(RunError::io("read", path, source).into()),
            Ok(metadata) if !metadata.is_dir() => {
                return Err(not_a_model("it is a file; a run, a checkpoint or a diffusers folder is needed").into());
            }
            Ok(_) => {}
        }
        if path.join(STATE).is_file() || is_step(path) {
            let checkpoint = Box::new(Checkpoint::open(path)?);
            let run = path.parent().and_then(Path::parent).and_then(|root| RunDir::open(root).ok());
            return Ok(Self::Checkpoint { checkpoint, run, report: None });
        }
        let run = RunDir::open(path).or_else(|error| match path.parent() {
            Some(parent) if path.ends_with("checkpoints") => RunDir::open(parent),
            _ => Err(error),
        });
        if let Ok(run) = run {
            return Self::newest_of(run);
        }
        if let Some(folder) = DiffusersFolder::find(path)? {
            return Ok(Self::Diffusers(folder));
        }
        Err(not_a_model(
            "neither a run (config.toml), nor a checkpoint (state.json), nor a diffusers folder (unet/config.json or \
             config.json)",
        )
        .into())
    }

    /// The newest sound checkpoint of a run.
    fn newest_of(run: RunDir) -> Result<Self, Error> {
        let mut found = checkpoint::newest(&run.checkpoints())?;
        let report = found.report();
        match found.checkpoint.take() {
            Some(checkpoint) => Ok(Self::Checkpoint { checkpoint: Box::new(checkpoint), run: Some(run), report }),
            None if found.passed_over.is_empty() => Err(RunError::NoCheckpoint { path: run.root().to_owned() }.into()),
            None => Err(found.passed_over.swap_remove(0).1.into()),
        }
    }
}

/// Whether a path is named like a checkpoint, if not one that can be read.
fn is_step(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).and_then(checkpoint::step_of).is_some()
}

impl DiffusersFolder {
    /// The files of a diffusers folder, if the path is one.
    ///
    /// # Errors
    /// [`RunError::Pickle`] if its weights are a pickle, [`RunError::NotAModel`] if it has none.
    pub fn find(path: &Path) -> Result<Option<Self>, RunError> {
        let unet = path.join("unet");
        let (network, root) = if unet.join("config.json").is_file() {
            (unet.as_path(), path)
        } else if path.join("config.json").is_file() {
            // `unet/` itself has its scheduler beside it; an old folder has all files in one place.
            let within = path.file_name().is_some_and(|name| name == "unet");
            (path, if within { path.parent().unwrap_or(path) } else { path })
        } else {
            return Ok(None);
        };
        let scheduler = [root.join("scheduler").join(SCHEDULER), network.join(SCHEDULER), root.join(SCHEDULER)]
            .into_iter()
            .find(|path| path.is_file());
        let class_names = Some(root.join(CLASS_NAMES)).filter(|path| path.is_file());
        let (config, weights) = (network.join("config.json"), weights_in(network)?);
        Ok(Some(Self { config, weights, scheduler, class_names }))
    }
}

/// The file of weights: the plain one, or a variant such as `diffusion_pytorch_model.fp16.safetensors`.
fn weights_in(network: &Path) -> Result<PathBuf, RunError> {
    let plain = network.join(WEIGHTS_STEM).with_extension("safetensors");
    if plain.is_file() {
        return Ok(plain);
    }
    let listing = fs::read_dir(network).map_err(|error| RunError::io("list", network, error))?;
    let mut files: Vec<PathBuf> = listing.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort_unstable();
    let named = |path: &Path, extension: &str| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(WEIGHTS_STEM) && path.extension().is_some_and(|found| found == extension)
    };
    if let Some(variant) = files.iter().find(|path| named(path, "safetensors")) {
        return Ok(variant.clone());
    }
    match files.into_iter().find(|path| named(path, "bin")) {
        Some(path) => Err(RunError::Pickle { path }),
        None => Err(RunError::NotAModel {
            path: network.to_owned(),
            reason: "it has a config.json, but no diffusion_pytorch_model.safetensors",
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn touch(root: &Path, files: &[&str]) {
        for file in files {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), "").unwrap();
        }
    }

    fn diffusers(path: &Path) -> DiffusersFolder {
        match Model::find(path).unwrap() {
            Model::Diffusers(folder) => folder,
            other @ Model::Checkpoint { .. } => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_form_of_a_diffusers_folder() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        touch(root, &["p/model_index.json", "p/unet/config.json", "p/unet/diffusion_pytorch_model.safetensors"]);
        touch(root, &["p/scheduler/scheduler_config.json"]);
        let pipeline = diffusers(&root.join("p"));
        assert_eq!(pipeline.weights, root.join("p/unet/diffusion_pytorch_model.safetensors"));
        assert_eq!(pipeline.scheduler, Some(root.join("p/scheduler/scheduler_config.json")));
        assert_eq!(diffusers(&root.join("p/unet")), pipeline);

        touch(root, &["bare/unet/config.json", "bare/unet/diffusion_pytorch_model.fp16.safetensors"]);
        let bare = diffusers(&root.join("bare"));
        assert_eq!(bare.weights, root.join("bare/unet/diffusion_pytorch_model.fp16.safetensors"));
        assert_eq!(bare.scheduler, None);

        touch(root, &["old/config.json", "old/scheduler_config.json", "old/diffusion_pytorch_model.safetensors"]);
        let old = diffusers(&root.join("old"));
        assert_eq!(old.config, root.join("old/config.json"));
        assert_eq!(old.scheduler, Some(root.join("old/scheduler_config.json")));
    }

    #[test]
    fn what_is_no_model_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        touch(root, &["pickle/config.json", "pickle/diffusion_pytorch_model.bin", "empty/unet/config.json"]);
        touch(root, &["begun/config.toml", "folder/photo.png"]);
        let message = |name: &str| Model::find(&root.join(name)).unwrap_err().to_string();
        assert!(message("pickle").contains("python -c"), "{}", message("pickle"));
        assert!(message("empty").contains("no diffusion_pytorch_model.safetensors"));
        assert!(message("begun").contains("no checkpoint yet"));
        assert!(message("begun/config.toml").contains("it is a file"));
        assert!(message("folder").contains("neither a run"));
        assert!(message("none").contains("nothing of that name"));
    }

    #[test]
    fn runs_and_checkpoints() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        run.write_config("").unwrap();
        let entries = [checkpoint::Entry { name: "w", shape: &[2], start: 0 }];
        for step in [1, 2] {
            let (data, state) = (vec![0.5, 1.5], checkpoint::State { step, ..Default::default() });
            let contents = checkpoint::Contents {
                state,
                config: "",
                entries: &entries,
                weights: &data,
                ema: &data,
                m: &data,
                v: &data,
                more: &[],
            };
            checkpoint::save(&run.checkpoints(), contents).unwrap();
        }
        let find = |path: &Path| match Model::find(path).unwrap() {
            Model::Checkpoint { checkpoint, run, report } => (checkpoint.state().step, run, report),
            other @ Model::Diffusers(_) => panic!("{other:?}"),
        };
        let second = run.checkpoints().join("step-000002");
        for path in [folder.path(), &run.checkpoints(), &second] {
            assert_eq!(find(path), (2, Some(run.clone()), None));
        }
        fs::write(second.join(checkpoint::EMA), "").unwrap();
        let (step, _, report) = find(folder.path());
        assert_eq!(step, 1);
        assert!(report.unwrap().contains("ema.safetensors is damaged"));
        fs::remove_file(second.join(STATE)).unwrap();
        assert!(Model::find(&second).unwrap_err().to_string().contains("state.json is damaged: it is missing"));
    }
}
