//! A small convolutional classifier, whose last features tell images apart: a yardstick for generated ones.

use std::sync::Arc;

use ddpm_kernels::conv::{Geometry, Padding};
use ddpm_kernels::{Backend, Epilogue, Operand};
use ddpm_tensor::{Tensor, View};

use crate::error::expect;
use crate::layers::{Conv, Dense, FeatureMap, GroupNorm};
use crate::layout::{Init, Layout};
use crate::{Mode, Parameters, Result, init};

/// Sizes of a [`Classifier`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassifierConfig {
    /// Channels of an image.
    pub in_channels: usize,
    /// Channels of each convolution, and whether it halves the image; the last one's channels are the features.
    pub stages: Vec<(usize, bool)>,
    /// Groups of every normalisation; divides all channels.
    pub groups: usize,
    /// Number of classes.
    pub classes: usize,
}

impl ClassifierConfig {
    /// For 28x28x1 digits: 64 features, 167,786 parameters.
    pub fn digits() -> Self {
        let stages = vec![(32, false), (64, true), (64, false), (96, true), (64, false)];
        Self { in_channels: 1, stages, groups: 8, classes: 10 }
    }
}

/// `h_1 = conv(x)`, `h_{i+1} = conv(SiLU(norm(h_i)))`, places = SiLU(norm(h_last)), features = the mean over places,
/// logits = dense(features).
#[derive(Debug, Clone, PartialEq)]
pub struct Classifier {
    conv_in: Conv,
    stages: Vec<(GroupNorm, Conv)>,
    norm_out: GroupNorm,
    logits: Dense,
    config: ClassifierConfig,
    layout: Arc<Layout>,
}

/// What a classifier says of images.
#[derive(Debug)]
pub struct Classified<B: Backend> {
    /// The last features before their mean over places, `[N, h, w, C]`.
    pub places: Tensor<B>,
    /// Their mean, `[N, C]`.
    pub features: Tensor<B>,
    /// `[N, classes]`, before the softmax.
    pub logits: Tensor<B>,
}

/// What [`Classifier::backward`] needs of the forward pass.
#[derive(Debug)]
pub struct ClassifierCache<B: Backend> {
    x: Tensor<B>,
    /// Each h with the statistics of its norm.
    maps: Vec<(Tensor<B>, Tensor<B>)>,
    features: Tensor<B>,
}

impl Classifier {
    /// A network of these sizes.
    ///
    /// # Errors
    /// No stage, or channels that the groups do not divide.
    pub fn new(config: &ClassifierConfig) -> Result<Self> {
        let groups = config.groups;
        let fits = !config.stages.is_empty() && config.stages.iter().all(|(c, _)| groups > 0 && c % groups == 0);
        let expected = || format!("one or more stages whose channels {groups} groups divide");
        expect(fits, "classifier", expected, || format!("{:?}", config.stages))?;

        let mut layout = Layout::default();
        let geometry = |halves: bool| if halves { Geometry::down(Padding::Same) } else { Geometry::THREE };
        let norm = |layout: &mut Layout, name: &str, c: usize| GroupNorm::new(layout.at(name), c, groups, 1e-5);
        let (mut c, halves) = config.stages[0];
        let conv_in = Conv::new(layout.at("conv_in"), geometry(halves), config.in_channels, c, Init::PAPER);
        let mut stages = Vec::new();
        for (i, &(c_out, halves)) in config.stages.iter().enumerate().skip(1) {
            let norm = norm(&mut layout, &format!("stages.{i}.norm"), c);
            let at = layout.at(&format!("stages.{i}.conv"));
            stages.push((norm, Conv::new(at, geometry(halves), c, c_out, Init::PAPER)));
            c = c_out;
        }
        let norm_out = norm(&mut layout, "norm_out", c);
        let logits = Dense::new(layout.at("logits"), c, config.classes, Init::PAPER);
        Ok(Self { conv_in, stages, norm_out, logits, config: config.clone(), layout: Arc::new(layout) })
    }

    /// Its sizes.
    pub fn config(&self) -> &ClassifierConfig {
        &self.config
    }

    /// Names, shapes and places of its parameters.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Its initial parameters, flat, in the layout's order.
    pub fn initial(&self, seed: u64) -> Vec<f32> {
        init::paper(&self.layout, seed)
    }

    /// What it says of images `x [N, H, W, C]`, and what [`Classifier::backward`] needs, unless the mode is [`Mode::Infer`].
    ///
    /// Image n's output does not depend, to the bit, on the other images.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        x: View<'_, B>,
        mode: Mode,
    ) -> Result<(Classified<B>, Option<ClassifierCache<B>>)> {
        parameters.check("classifier", &self.layout)?;
        let fits = matches!(x.shape().dims(), [_, _, _, c] if *c == self.config.in_channels);
        let expected = || format!("images [N, H, W, {}]", self.config.in_channels);
        expect(fits, "classifier", expected, || x.shape().to_string())?;

        let left = || Epilogue { statistics: true, ..Epilogue::default() };
        let mut h = FeatureMap::from(self.conv_in.forward(backend, parameters, &Operand::plain(x), left())?);
        let mut maps = Vec::new();
        for (norm, conv) in &self.stages {
            let statistics = norm.statistics(backend, parameters, &h, None, None)?;
            let operand = Operand::plain(h.x.view()).norm(norm.norm(parameters, &statistics, None)?).silu();
            let next = FeatureMap::from(conv.forward(backend, parameters, &operand, left())?);
            maps.push((std::mem::replace(&mut h, next).x, statistics));
        }
        let statistics = self.norm_out.statistics(backend, parameters, &h, None, None)?;
        let operand = Operand::plain(h.x.view()).norm(self.norm_out.norm(parameters, &statistics, None)?).silu();
        let places = backend.operand_value(&operand)?;
        maps.push((h.x, statistics));

        let [n, height, width, c] = places.shape().nhwc();
        let sums = backend.pixel_sums(places.view())?;
        let features = backend.affine(sums.view(), 1.0 / (height * width) as f64, 0.0)?.reshape([n, 1, 1, c])?;
        let logits = self.logits.forward(backend, parameters, &Operand::plain(features.view()), Epilogue::default())?.y;
        let logits = logits.reshape([n, self.config.classes])?;
        let cache = if mode.keeps() {
            let features = Tensor::copy_of(backend, features.view())?;
            Some(ClassifierCache { x: Tensor::copy_of(backend, x)?, maps, features })
        } else {
            None
        };
        Ok((Classified { places, features: features.reshape([n, c])?, logits }, cache))
    }

    /// Adds the parameters' gradients to `grads` and returns the gradient of x, if wanted; `d_logits [N, classes]`.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn backward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        cache: ClassifierCache<B>,
        d_logits: View<'_, B>,
        mut grads: Option<&mut Parameters<B>>,
        want_dx: bool,
    ) -> Result<Option<Tensor<B>>> {
        parameters.check("classifier, backward", &self.layout)?;
        let ClassifierCache { x, mut maps, features } = cache;
        let [n, _, _, c] = features.shape().nhwc();
        let d_logits = d_logits.reshape([n, 1, 1, self.config.classes])?;
        let operand = Operand::plain(features.view());
        let d_features = self.logits.backward(backend, parameters, &operand, d_logits, grads.as_deref_mut())?.g;

        let Some((h, statistics)) = maps.pop() else { return Ok(None) };
        let operand = Operand::plain(h.view()).norm(self.norm_out.norm(parameters, &statistics, None)?).silu();
        // every place has the same share in the mean
        let [_, height, width, _] = h.shape().nhwc();
        let share = backend.affine(d_features.view(), 1.0 / (height * width) as f64, 0.0)?.reshape([n, c])?;
        let rows: Vec<usize> = (0..n).flat_map(|image| std::iter::repeat_n(image, height * width)).collect();
        let d_places = backend.gather_rows(share.view(), &rows)?.reshape([n, height, width, c])?;
        let pulled = backend.operand_pull(d_places.view(), &operand)?;
        let mut dh = self.norm_out.backward(backend, &operand, pulled, [None, None], grads.as_deref_mut())?.first;
        drop((h, statistics));

        for ((norm, conv), (h, statistics)) in self.stages.iter().zip(maps).rev() {
            let operand = Operand::plain(h.view()).norm(norm.norm(parameters, &statistics, None)?).silu();
            let pulled = conv.backward(backend, parameters, &operand, dh.view(), grads.as_deref_mut())?;
            dh = norm.backward(backend, &operand, pulled, [None, None], grads.as_deref_mut())?.first;
        }
        let operand = Operand::plain(x.view());
        if let Some(grads) = grads {
            self.conv_in.parameter_grads(backend, &operand, dh.view(), None, grads)?;
        }
        if !want_dx {
            return Ok(None);
        }
        Ok(Some(self.conv_in.input_grad(backend, parameters, &operand, dh.view())?.g))
    }
}
