//! From images to features: a network that is not part of any model under test.
//!
//! | file | idea |
//! |---|---|
//! | `digits` | the classifier of 28x28x1 digits that is part of the program, and how it was trained |
//! | `inception` | Inception-v3 as pytorch-fid has it |
//! | `lowered` | convolutions of any shape by lowering, pooling, resizing |

pub mod digits;
mod inception;
mod lowered;

pub use inception::Inception;

use ddpm_kernels::Backend;
use ddpm_nn::classifier::Classifier;
use ddpm_nn::{Mode, Parameters};
use ddpm_tensor::Tensor;

use super::error::{EvalError, expect};
use crate::error::Error;

/// Channels of the features with places, which sFID takes (Nash et al. 2021).
const PLACED: usize = 7;

/// What a feature network says of images.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Features {
    /// Features, `[N, D]`.
    pub pooled: Vec<f32>,
    /// The first 7 channels of features that still have places, `[N, S]`.
    pub placed: Vec<f32>,
    /// Logits of classes, `[N, K]`.
    pub logits: Vec<f32>,
}

/// D, S and K of [`Features`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Widths {
    /// D.
    pub pooled: usize,
    /// S.
    pub placed: usize,
    /// K.
    pub logits: usize,
}

/// A network that makes features, with its numbers on a device.
#[derive(Debug)]
pub struct FeatureNetwork<B: Backend<Elem = f32>> {
    kind: Kind<B>,
    hash: String,
}

#[derive(Debug)]
enum Kind<B: Backend<Elem = f32>> {
    Digits(Box<Classifier>, Parameters<B>),
    Inception(Box<Inception<B>>),
}

impl<B: Backend<Elem = f32>> FeatureNetwork<B> {
    /// The program's own classifier of digits.
    ///
    /// # Errors
    /// Those of the device.
    pub fn digits(backend: &B) -> Result<Self, Error> {
        let (classifier, flat, hash) = digits::embedded()?;
        let parameters = Parameters::from_host(backend, classifier.layout(), &flat)?;
        Ok(Self { kind: Kind::Digits(Box::new(classifier), parameters), hash })
    }

    /// Inception-v3 from the bytes of a safetensors file with the names of pytorch-fid's class.
    ///
    /// # Errors
    /// [`EvalError::Weights`] names the first tensor that is missing or misshapen; those of the device.
    pub fn inception(backend: &B, weights: &[u8]) -> Result<Self, Error> {
        let inception = Inception::from_safetensors(backend, weights)?;
        let hash = blake3::hash(weights).to_hex().to_string();
        Ok(Self { kind: Kind::Inception(Box::new(inception)), hash })
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Digits(..) => "ddpm-digits-classifier",
            Kind::Inception(_) => "inception-v3",
        }
    }

    /// BLAKE3 of its weights' file.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// How images are brought to its size.
    pub fn resize(&self) -> &'static str {
        match self.kind {
            Kind::Digits(..) => "none",
            Kind::Inception(_) => "bilinear to 299x299, half-pixel centres, no antialiasing (as pytorch-fid)",
        }
    }

    /// Sizes of its features.
    pub fn widths(&self) -> Widths {
        match &self.kind {
            Kind::Digits(classifier, _) => {
                let config = classifier.config();
                let pooled = config.stages.last().map_or(0, |stage| stage.0);
                Widths { pooled, placed: PLACED * digits::PLACES * digits::PLACES, logits: config.classes }
            }
            Kind::Inception(_) => Inception::<B>::WIDTHS,
        }
    }

    /// Fails unless it takes images `[H, W, C]`.
    ///
    /// # Errors
    /// [`EvalError::Input`].
    pub fn check(&self, [height, width, channels]: [usize; 3]) -> Result<(), EvalError> {
        let got = || format!("{height}x{width}x{channels}");
        match self.kind {
            Kind::Digits(..) => {
                let side = digits::SIDE;
                let fits = [height, width, channels] == [side, side, 1];
                expect(fits, "features of digits", || format!("images of {side}x{side}x1"), got)
            }
            Kind::Inception(_) => expect(matches!(channels, 1 | 3), "features", || "grey or RGB images".into(), got),
        }
    }

    /// Features of images of 8 bits, `[N, H, W, C]`; image n's do not depend, to the bit, on the other images.
    ///
    /// # Errors
    /// Images of a size that it does not take; those of the device.
    pub fn features(
        &self,
        backend: &B,
        images: &[u8],
        [height, width, channels]: [usize; 3],
    ) -> Result<Features, Error> {
        self.check([height, width, channels])?;
        let count = images.len() / (height * width * channels).max(1);
        match &self.kind {
            Kind::Inception(inception) => inception.features(backend, images, [count, height, width, channels]),
            Kind::Digits(classifier, parameters) => {
                let values: Vec<f32> = images.iter().map(|&level| f32::from(level) / 127.5 - 1.0).collect();
                let x = Tensor::from_slice(backend, [count, height, width, channels], &values)?;
                let (seen, _) = classifier.forward(backend, parameters, x.view(), Mode::Infer)?;
                let [_, h, w, c] = seen.places.shape().nhwc();
                Ok(Features {
                    placed: first_channels(&seen.places.to_vec(backend)?, h * w * count, c),
                    pooled: seen.features.to_vec(backend)?,
                    logits: seen.logits.to_vec(backend)?,
                })
            }
        }
    }
}

/// The first 7 of `channels` channels of each pixel.
fn first_channels(values: &[f32], pixels: usize, channels: usize) -> Vec<f32> {
    values
        .chunks_exact(channels.max(1))
        .take(pixels)
        .flat_map(|pixel| &pixel[..PLACED.min(channels)])
        .copied()
        .collect()
}
