//! Helpers shared by the tests that span crates: a small run that has everything in it that a large one has.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, clippy::missing_errors_doc)] // a helper that fails is a test that fails

pub mod gpu_plan;
pub mod objectives;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ddpm_nn::config::DownBlock;
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cpu, CpuOptions};
use ddpm_train::Error;
use ddpm_train::data::{DataOptions, DataSet};
use ddpm_train::run::RunDir;
use ddpm_train::settings::Settings;
use ddpm_train::trainer::{Engine, Observer, Outcome, Session, Trainer};

/// Whether all cases are to be run (`DDPM_TORTURE=full`) or a sample of them.
pub fn torture() -> bool {
    std::env::var("DDPM_TORTURE").is_ok_and(|value| value == "full")
}

/// Settings of a run that is over in a second: two levels of 8 and 16 channels, attention, dropout, classes, flips, clipping,
/// warm-up, decay and an average, 24 steps of 64 images.
pub fn tiny_settings() -> Settings {
    let mut settings = Settings::default();
    settings.train.steps = 24;
    settings.train.batch = 64;
    settings.train.seed = 7;
    settings.data.classes = true;
    settings.data.flip = true;
    settings.network.block_out_channels = vec![8, 16];
    settings.network.down_block_types = vec![DownBlock::Plain, DownBlock::Attention];
    settings.network.layers_per_block = 1;
    settings.network.norm_num_groups = 4;
    settings.network.dropout = 0.1;
    settings.optimiser.lr = 2e-3;
    settings.optimiser.warmup = 5;
    settings.optimiser.decay = "cosine".parse().unwrap();
    settings.optimiser.clip_norm = 0.5;
    settings.ema.decay = 0.9;
    settings.checkpoint.every = 0;
    settings.checkpoint.keep = 3;
    settings.preview.every = 0;
    settings.preview.count = 4;
    settings.preview.steps = 2;
    settings
}

/// 100 images of 8x8 pixels in three classes: a bar at a place of its own on noise. Ten of them are held out.
pub fn tiny_data() -> Arc<DataSet> {
    const SIZE: [usize; 4] = [100, 8, 8, 1];
    let [count, height, width, _] = SIZE;
    let mut pixels = Vec::with_capacity(count * height * width);
    let mut labels = Vec::with_capacity(count);
    for image in 0..count {
        let random = |block| Address::new(1, Purpose::Test).at_sample(image as u64).block(block);
        let (label, place) = (image as u32 % 3, random(999)[0] as usize % 6 + 1);
        labels.push(label);
        for y in 0..height {
            for x in 0..width {
                let inside = match label {
                    0 => y == place,
                    1 => x == place,
                    _ => y == place || x == place,
                };
                let noise = random((y * width + x) as u32)[1] % 32;
                pixels.push(if inside { 255 - noise as u8 } else { noise as u8 });
            }
        }
    }
    let options = DataOptions { classes: true, flip: true, ..DataOptions::default() };
    Arc::new(DataSet::from_pixels("tiny", pixels, SIZE, Some(labels), None, &options).unwrap())
}

/// A CPU with so many threads and the machine's best instruction set.
pub fn cpu(threads: usize) -> Cpu {
    Cpu::new(CpuOptions { threads: Some(threads), ..CpuOptions::default() }).unwrap()
}

/// A trainer of the tiny run.
pub fn tiny_trainer(threads: usize, settings: Settings) -> Result<Trainer<Cpu>, Error> {
    let cpu = cpu(threads);
    let engine = Engine { isa: cpu.isa().to_string(), precision: cpu.precision().to_string() };
    Trainer::new(cpu, engine, settings, &tiny_data())
}

/// Trains in `folder`, from its newest checkpoint if there is one, and says how it ended.
pub fn tiny_run(
    folder: &Path,
    threads: usize,
    settings: Settings,
    stop_at: Option<u64>,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    let run = match RunDir::open(folder) {
        Ok(run) => run,
        Err(_) => RunDir::create(folder)?,
    };
    let lock = run.lock()?;
    run.write_config(&settings.to_toml_commented())?;
    let mut session = Session::begin(tiny_trainer(threads, settings)?, run, lock, observer)?;
    session.run(&AtomicBool::new(false), stop_at, observer)
}

/// The files of a folder and what they hold.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())).collect()
}

/// Fails with the first file that differs, and the first byte.
pub fn assert_same_files(what: &str, one: &Path, two: &Path) {
    let (one, two) = (files(one), files(two));
    assert_eq!(one.keys().collect::<Vec<_>>(), two.keys().collect::<Vec<_>>(), "{what}: other files");
    for (name, bytes) in &one {
        let other = &two[name];
        let place = bytes.iter().zip(other).position(|(a, b)| a != b);
        assert!(place.is_none() && bytes.len() == other.len(), "{what}: {name} differs from byte {place:?} on");
    }
}
