//! The classifier of digits that is part of the program: its numbers, and the training that made them
//! (`cargo xtask digits-classifier`). Scores on its features compare models of digits with each other and with nothing else.

use std::sync::Arc;

use ddpm_kernels::Backend;
use ddpm_nn::classifier::{Classifier, ClassifierConfig};
use ddpm_nn::{Mode, Parameters, diffusers};
use ddpm_tensor::Tensor;
use ddpm_tensor::random::{Address, Purpose};

use crate::data::{self, DataOptions, DataSet, Loader};
use crate::ema::EmaSettings;
use crate::error::Error;
use crate::eval::EvalError;
use crate::optimiser::{Decay, OptimiserSettings};

/// Height and width of the images.
pub const SIDE: usize = 28;
/// Height and width of the last feature map.
pub(super) const PLACES: usize = SIDE / 4;
/// Number of classes.
const CLASSES: usize = 10;

/// Updates of the training.
pub const STEPS: u64 = 1500;
const BATCH: usize = 64;
const SEED: u64 = 0;
/// Each image is shifted by up to so many pixels in both directions.
const SHIFT: i64 = 2;
/// Images that are classified at once.
const AT_ONCE: usize = 100;

static WEIGHTS: &[u8] = include_bytes!("../../../../../data/digits-classifier.safetensors");

/// The network, its parameters, and the hash of their file.
///
/// # Errors
/// [`EvalError::Weights`] for a program that was built without it.
pub fn embedded() -> Result<(Classifier, Vec<f32>, String), Error> {
    if WEIGHTS.is_empty() {
        let what = "this program was built without the classifier of digits: `cargo xtask digits-classifier` trains it";
        return Err(EvalError::Weights(what.to_owned()).into());
    }
    let classifier = Classifier::new(&ClassifierConfig::digits())?;
    let flat = diffusers::read(classifier.layout(), WEIGHTS)?;
    Ok((classifier, flat, blake3::hash(WEIGHTS).to_hex().to_string()))
}

/// The digits with their classes: 9,000 to learn from, 1,000 held out.
///
/// # Errors
/// None but for a damaged program.
pub fn images() -> Result<DataSet, Error> {
    Ok(data::digits(&DataOptions { classes: true, holdout: 0.1, ..DataOptions::default() })?)
}

/// Trains the classifier on the first 9,000 digits and returns the average of its parameters, flat. The same bits every time
/// in `strict`.
///
/// AdamW with a cosine's decay on cross-entropy; each image is shifted by up to 2 pixels, anew every time. `watch` hears each
/// step's loss.
///
/// # Errors
/// Those of the device.
pub fn train<B: Backend<Elem = f32>>(backend: &B, mut watch: impl FnMut(u64, f64)) -> Result<Vec<f32>, Error> {
    let network = Classifier::new(&ClassifierConfig::digits())?;
    let layout = network.layout();
    let optimiser = OptimiserSettings {
        lr: 3e-3,
        warmup: 100,
        decay: Decay::Cosine,
        weight_decay: 0.02,
        ..OptimiserSettings::default()
    };
    let ema_settings = EmaSettings { decay: 0.99, warmup: true, ..EmaSettings::default() };
    let mut parameters = Parameters::from_host(backend, layout, &network.initial(SEED))?;
    let mut ema = parameters.duplicate(backend)?;
    let zeros = || Parameters::zeros(backend, layout);
    let (mut grads, mut m, mut v) = (zeros()?, zeros()?, zeros()?);
    let loader = Loader::new(Arc::new(images()?), SEED);
    let (mut pixels, mut labels) = (vec![0.0; BATCH * SIDE * SIDE], vec![0; BATCH]);
    for step in 0..STEPS {
        loader.batch(step, &mut pixels, &mut labels)?;
        for (i, image) in pixels.chunks_exact_mut(SIDE * SIDE).enumerate() {
            let address = Address::new(SEED, Purpose::Score).at_step(step).at_sample(i as u64);
            let [down, right, ..] = address.block(0).map(|bits| i64::from(bits) % (2 * SHIFT + 1) - SHIFT);
            shift(image, down, right);
        }
        let x = Tensor::from_slice(backend, [BATCH, SIDE, SIDE, 1], &pixels)?;
        let (seen, cache) = network.forward(backend, &parameters, x.view(), Mode::Differentiate)?;
        let (loss, d_logits) = cross_entropy(&seen.logits.to_vec(backend)?, &labels);
        let d_logits = Tensor::from_slice(backend, [BATCH, CLASSES], &d_logits)?;
        if let Some(cache) = cache {
            network.backward(backend, &parameters, cache, d_logits.view(), Some(&mut grads), false)?;
        }
        let norm = backend.squared_norm(grads.buffer())?.sqrt();
        let update = optimiser.update(step, STEPS, norm, &ema_settings);
        backend.adamw(
            &update,
            parameters.buffer_mut(),
            grads.buffer_mut(),
            m.buffer_mut(),
            v.buffer_mut(),
            ema.buffer_mut(),
        )?;
        watch(step, loss);
    }
    Ok(ema.to_host(backend)?)
}

/// Moves an image down and to the right; what comes in is black.
fn shift(image: &mut [f32], down: i64, right: i64) {
    let old = image.to_vec();
    let side = SIDE as i64;
    for (place, pixel) in image.iter_mut().enumerate() {
        let (y, x) = (place as i64 / side - down, place as i64 % side - right);
        let inside = (0..side).contains(&y) && (0..side).contains(&x);
        *pixel = if inside { old[(y * side + x) as usize] } else { -1.0 };
    }
}

/// Mean cross-entropy of `logits [N, 10]`, and its gradient `(softmax − one-hot)/N`.
fn cross_entropy(logits: &[f32], labels: &[u32]) -> (f64, Vec<f32>) {
    let n = labels.len() as f64;
    let (mut loss, mut gradient) = (0.0, Vec::with_capacity(logits.len()));
    for (row, &label) in logits.chunks_exact(CLASSES).zip(labels) {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f64> = row.iter().map(|&x| libm::exp(f64::from(x - most))).collect();
        let sum: f64 = powers.iter().sum();
        for (class, power) in powers.iter().enumerate() {
            let p = power / sum;
            let is_label = class == label as usize;
            if is_label {
                loss -= libm::log(p) / n;
            }
            gradient.push(((p - f64::from(u8::from(is_label))) / n) as f32);
        }
    }
    (loss, gradient)
}

/// The class that logits `[N, 10]` speak for, of each image.
pub fn classes(logits: &[f32]) -> Vec<usize> {
    let best = |row: &[f32]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(class, _)| class);
    logits.chunks_exact(CLASSES).map(best).collect()
}

/// How many of the held-out digits, and of all of them, parameters classify rightly.
///
/// # Errors
/// Those of the device.
pub fn right<B: Backend<Elem = f32>>(backend: &B, flat: &[f32]) -> Result<(usize, usize), Error> {
    let network = Classifier::new(&ClassifierConfig::digits())?;
    let parameters = Parameters::from_host(backend, network.layout(), flat)?;
    let data = images()?;
    let part = data.heldout_indices();
    let mut right = 0;
    for first in part.clone().step_by(AT_ONCE) {
        let range = first..(first + AT_ONCE).min(part.end);
        let mut pixels = vec![0.0; range.len() * SIDE * SIDE];
        for (index, out) in range.clone().zip(pixels.chunks_exact_mut(SIDE * SIDE)) {
            data.image_f32(index, out)?;
        }
        let x = Tensor::from_slice(backend, [range.len(), SIDE, SIDE, 1], &pixels)?;
        let (seen, _) = network.forward(backend, &parameters, x.view(), Mode::Infer)?;
        let labels = data.labels().unwrap_or_default();
        let found = classes(&seen.logits.to_vec(backend)?);
        right += range.zip(found).filter(|&(index, class)| labels.get(index) == Some(&(class as u32))).count();
    }
    Ok((right, part.len()))
}
