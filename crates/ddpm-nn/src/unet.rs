use std::sync::Arc;

use ddpm_kernels::conv::{Along, Geometry, Padding};
use ddpm_kernels::{Backend, Epilogue, Operand, Pulled};
use ddpm_tensor::{Tensor, View};

use crate::blocks::{
    Down, DownCache, Downsample, Mid, MidCache, Residual, ResidualOptions, Temb, Up, UpCache, Upsample,
};
use crate::config::{DownBlock, TimeEmbeddingType, UNetConfig, UpBlock};
use crate::error::expect;
use crate::layers::{
    Attention, ClassCache, ClassEmbedding, Classes, Conv, FeatureMap, Fourier, GroupNorm, MapGrad, Sinusoid, TimeCache,
    TimeEmbedding, Waves,
};
use crate::layout::{Init, Layout};
use crate::{Mode, NnError, Parameters, Result, init};

/// The U-Net of Ho et al. 2020 with the options of diffusers' `UNet2DModel`: a description, its numbers live in
/// [`Parameters`].
///
/// ```
/// # use ddpm_nn::{Mode, Parameters, UNet, config::UNetConfig};
/// # use ddpm_tensor::{Cpu, Tensor};
/// # fn main() -> Result<(), ddpm_nn::NnError> {
/// let text = r#"{"in_channels": 1, "out_channels": 1, "block_out_channels": [8, 16], "norm_num_groups": 4,
///     "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]}"#;
/// let unet = UNet::new(&UNetConfig::from_json(text)?)?;
/// let cpu = Cpu::<f32>::new(Default::default())?;
/// let parameters = Parameters::from_host(&cpu, unet.layout(), &unet.initial(0))?;
/// let x = Tensor::zeros(&cpu, [2, 8, 8, 1])?;
/// let (eps, _) = unet.forward(&cpu, &parameters, x.view(), &[0.0, 999.0], None, Mode::Infer)?;
/// assert_eq!(eps.shape().dims(), [2, 8, 8, 1]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct UNet {
    config: UNetConfig,
    layout: Arc<Layout>,
    conv_in: Conv,
    time: TimeEmbedding,
    class: ClassEmbedding,
    down: Vec<Down>,
    mid: Mid,
    up: Vec<Up>,
    norm_out: GroupNorm,
    conv_out: Conv,
}

/// What [`UNet::backward`] needs of the forward pass.
#[derive(Debug)]
pub struct UNetCache<B: Backend> {
    x: Tensor<B>,
    time: TimeCache<B>,
    class: ClassCache<B>,
    temb: Tensor<B>,
    down: Vec<DownCache<B>>,
    mid: MidCache<B>,
    up: Vec<UpCache<B>>,
    out: FeatureMap<B>,
    out_statistics: Tensor<B>,
    /// What each image's prediction was divided by.
    divisors: Option<Vec<f32>>,
}

impl UNet {
    /// The network of a configuration.
    ///
    /// # Errors
    /// [`NnError::Config`] when the options contradict each other.
    pub fn new(config: &UNetConfig) -> Result<Self> {
        config.validate(config.size_multiple(), config.size_multiple())?;
        Ok(Builder { config, layout: Layout::default(), layers: 0 }.build())
    }

    /// What the network was built from.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Names, shapes and ranges of the parameters.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The paper's initial parameters for a seed, flat; for [`Parameters::from_host`]. See [`crate::init`].
    pub fn initial(&self, seed: u64) -> Vec<f32> {
        init::paper(&self.layout, seed)
    }

    /// The prediction for images `x [N, H, W, in_channels]` at one time step each (array indices, possibly fractional):
    /// `[N, H, W, out_channels]`, and what [`UNet::backward`] needs, unless the mode is [`Mode::Infer`].
    ///
    /// Image n's output does not depend, to the bit, on the other images.
    ///
    /// # Errors
    /// When sizes, counts or classes do not fit the network, or the device fails.
    pub fn forward<'a, B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        x: View<'_, B>,
        timesteps: &[f32],
        classes: impl Into<Classes<'a, B>>,
        mode: Mode,
    ) -> Result<(Tensor<B>, Option<UNetCache<B>>)> {
        self.check_input(x, timesteps)?;
        parameters.check("U-Net", &self.layout)?;
        let centred = self.config.center_input_sample.then(|| backend.affine(x, 2.0, -1.0)).transpose()?;
        let x = centred.as_ref().map_or(x, Tensor::view);

        let (time, time_cache) = self.time.forward(backend, parameters, timesteps)?;
        let (temb, class_cache) = self.class.forward(backend, parameters, classes.into(), time)?;

        let epilogue = Epilogue { statistics: true, ..Epilogue::default() };
        let y = self.conv_in.forward(backend, parameters, &Operand::plain(x), epilogue)?;
        let mut h = Arc::new(FeatureMap::from(y));
        let mut skips = vec![Arc::clone(&h)];
        let mut down = Vec::new();
        for level in &self.down {
            let cache;
            (h, cache) = level.forward(backend, parameters, h, temb.view(), &mut skips, mode)?;
            down.extend(cache);
        }
        let (mut h, mid) = self.mid.forward(backend, parameters, h, temb.view(), mode)?;
        let mut up = Vec::new();
        for level in &self.up {
            let cache;
            (h, cache) = level.forward(backend, parameters, h, temb.view(), &mut skips, mode)?;
            up.extend(cache);
        }
        let out_statistics = self.norm_out.statistics(backend, parameters, &h, None, None)?;
        let operand = self.operand_out(parameters, &h, &out_statistics)?;
        let y = self.conv_out.forward(backend, parameters, &operand, Epilogue::default())?.y;
        let divisors = (self.config.time_embedding_type == TimeEmbeddingType::Fourier).then(|| timesteps.to_vec());
        let y = match &divisors {
            Some(divisors) => divided(backend, y.view(), divisors)?,
            None => y,
        };

        let cache = match mid {
            Some(mid) => {
                let x = match centred {
                    Some(x) => x,
                    None => Tensor::copy_of(backend, x)?,
                };
                let (time, class, out) = (time_cache, class_cache, h);
                Some(UNetCache { x, time, class, temb, down, mid, up, out, out_statistics, divisors })
            }
            None => None,
        };
        Ok((y, cache))
    }

    /// Adds the parameters' gradients to `grads`, if given, and returns the gradient of x, if wanted; `dy` is the
    /// gradient of the prediction. The cache is used up.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn backward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        cache: UNetCache<B>,
        dy: View<'_, B>,
        mut grads: Option<&mut Parameters<B>>,
        want_dx: bool,
    ) -> Result<Option<Tensor<B>>> {
        parameters.check("U-Net, backward", &self.layout)?;
        if let Some(grads) = &grads {
            grads.check("U-Net, backward", &self.layout)?;
        }
        let UNetCache { x, time, class, temb, down, mid, up, out, out_statistics, divisors } = cache;
        let divided = divisors.map(|divisors| divided(backend, dy, &divisors)).transpose()?;
        let dy = divided.as_ref().map_or(dy, Tensor::view);
        let mut temb = Temb::new(temb.view());
        let learns = grads.is_some();
        let mut skip_grads = Vec::new();

        let operand = self.operand_out(parameters, &out, &out_statistics)?;
        let norm = Some(&self.norm_out);
        let (seen, none) = ((dy, None), Along::default());
        let of_out = self.conv_out.backward_to_parts(
            backend,
            parameters,
            &operand,
            norm,
            seen,
            none,
            grads.as_deref_mut(),
            learns,
        )?;
        let mut d = MapGrad::from(of_out);
        drop((out, out_statistics));
        for (level, cache) in self.up.iter().zip(up).rev() {
            d = level.backward(backend, parameters, cache, d, &mut skip_grads, &mut temb, grads.as_deref_mut())?;
        }
        let add = skip_grads.pop();
        d = self.mid.backward(backend, parameters, mid, d, add, &mut temb, grads.as_deref_mut())?;
        for (level, cache) in self.down.iter().zip(down).rev() {
            d = level.backward(backend, parameters, cache, d, &mut skip_grads, &mut temb, grads.as_deref_mut())?;
        }

        let operand = Operand::plain(x.view());
        if let Some(grads) = grads {
            let (dy, dy_sums) = d.seen();
            self.conv_in.parameter_grads(backend, &operand, dy, dy_sums, grads)?;
            if let Some(d_temb) = temb.backward(backend, parameters, grads)? {
                self.class.backward(backend, parameters, class, d_temb.view(), grads)?;
                self.time.backward(backend, parameters, time, d_temb.view(), grads)?;
            }
        }
        if !want_dx {
            return Ok(None);
        }
        let Pulled { g: dx, .. } = self.conv_in.input_grad(backend, parameters, &operand, d.d.view())?;
        // x entered as 2x − 1
        Ok(Some(if self.config.center_input_sample { backend.affine(dx.view(), 2.0, 0.0)? } else { dx }))
    }

    fn operand_out<'a, B: Backend>(
        &self,
        parameters: &'a Parameters<B>,
        h: &'a FeatureMap<B>,
        statistics: &'a Tensor<B>,
    ) -> Result<Operand<'a, B>> {
        Ok(Operand::plain(h.x.view()).norm(self.norm_out.norm(parameters, statistics, None)?).silu())
    }

    fn check_input<B: Backend>(&self, x: View<'_, B>, timesteps: &[f32]) -> Result<()> {
        let channels = self.config.in_channels;
        let (n, h, w) = match *x.shape().dims() {
            [n, h, w, c] if c == channels && n > 0 => (n, h, w),
            _ => {
                return Err(NnError::Input {
                    operation: "U-Net",
                    expected: format!("images [N, H, W, {channels}]"),
                    got: x.shape().to_string(),
                });
            }
        };
        self.config.validate(h, w)?;
        expect(
            timesteps.len() == n && timesteps.iter().all(|t| t.is_finite()),
            "U-Net",
            || format!("{n} finite time steps, one for each image"),
            || match timesteps.iter().find(|t| !t.is_finite()) {
                Some(t) => format!("the time step {t}"),
                None => format!("{} time steps", timesteps.len()),
            },
        )
    }
}

/// Images `[N, H, W, C]`, each over its own number.
fn divided<B: Backend>(backend: &B, images: View<'_, B>, by: &[f32]) -> Result<Tensor<B>> {
    let [n, h, w, c] = images.shape().nhwc();
    let (len, start) = (h * w * c, images.range().start);
    let mut all = backend.alloc(n * len)?;
    for (i, by) in by.iter().enumerate() {
        let image = View::<B>::of(images.buffer(), start + i * len, [1, h, w, c])?;
        let image = backend.affine(image, 1.0 / f64::from(*by), 0.0)?;
        backend.copy(image.view().buffer(), 0..len, &mut all, i * len)?;
    }
    Ok(Tensor::from_buffer(all, [n, h, w, c])?)
}

/// Makes the layers in the order of the forward pass.
struct Builder<'a> {
    config: &'a UNetConfig,
    layout: Layout,
    layers: usize,
}

impl Builder<'_> {
    fn build(mut self) -> UNet {
        let config = self.config;
        let channels = &config.block_out_channels;
        let levels = config.levels();
        let waves = match config.time_embedding_type {
            TimeEmbeddingType::Positional => {
                let (freq_shift, flip_sin_to_cos) = (config.freq_shift, config.flip_sin_to_cos);
                Waves::Sinusoid(Sinusoid { dim: channels[0], freq_shift, flip_sin_to_cos })
            }
            TimeEmbeddingType::Fourier => Waves::Fourier(Fourier::new(self.layout.at("time_proj"), channels[0])),
        };
        let time = TimeEmbedding::new(self.layout.at("time_embedding"), waves, config.embedding_dim());
        let class = ClassEmbedding::new(&mut self.layout, config, waves);
        let conv_in =
            Conv::new(self.layout.at("conv_in"), Geometry::THREE, config.in_channels, channels[0], Init::PAPER);
        let down = (0..levels).map(|level| self.down(level)).collect();
        let mid = self.mid();
        let up = (0..levels).map(|i| self.up(i)).collect();
        let norm_out = self.norm("conv_norm_out", channels[0]);
        let conv_out =
            Conv::new(self.layout.at("conv_out"), Geometry::THREE, channels[0], config.out_channels, Init::PAPER_ZERO);
        let layout = Arc::new(self.layout);
        UNet { config: config.clone(), layout, conv_in, time, class, down, mid, up, norm_out, conv_out }
    }

    fn norm(&mut self, name: &str, channels: usize) -> GroupNorm {
        GroupNorm::new(self.layout.at(name), channels, self.config.norm_num_groups, self.config.norm_eps)
    }

    fn residual(&mut self, name: &str, c_in: usize, c_out: usize, scale: f32) -> Residual {
        let config = self.config;
        let options = ResidualOptions {
            temb: config.embedding_dim(),
            groups: config.norm_num_groups,
            eps: config.norm_eps,
            time_scale_shift: config.resnet_time_scale_shift,
            dropout: config.dropout,
            scale,
        };
        self.layers += 1;
        Residual::new(self.layout.at(name), c_in, c_out, options, self.layers - 1)
    }

    fn attention(&mut self, name: &str, channels: usize, groups: Option<usize>, scale: f32) -> Attention {
        let heads = self.config.heads(channels);
        Attention::new(self.layout.at(name), channels, groups, self.config.norm_eps, heads, scale)
    }

    fn layer(
        &mut self,
        block: &str,
        i: usize,
        c_in: usize,
        c_out: usize,
        attends: bool,
    ) -> (Residual, Option<Attention>) {
        let residual = self.residual(&format!("{block}.resnets.{i}"), c_in, c_out, 1.0);
        let groups = Some(self.config.norm_num_groups);
        let attention = attends.then(|| self.attention(&format!("{block}.attentions.{i}"), c_out, groups, 1.0));
        (residual, attention)
    }

    fn down(&mut self, level: usize) -> Down {
        let config = self.config;
        let channels = &config.block_out_channels;
        let block = format!("down_blocks.{level}");
        let attends = config.down_block_types[level] == DownBlock::Attention;
        let c_out = channels[level];
        let layers = (0..config.layers_per_block)
            .map(|i| {
                let c_in = if i == 0 { channels[level.saturating_sub(1)] } else { c_out };
                self.layer(&block, i, c_in, c_out, attends)
            })
            .collect();
        let padding = if config.downsample_padding == 0 { Padding::End } else { Padding::Same };
        let downsample = (level + 1 < config.levels())
            .then(|| Downsample::new(self.layout.at(&format!("{block}.downsamplers.0")), c_out, padding));
        Down { layers, downsample }
    }

    fn mid(&mut self) -> Mid {
        let config = self.config;
        let channels = config.block_out_channels[config.levels() - 1];
        let scale = (1.0 / config.mid_block_scale_factor) as f32;
        let first = self.residual("mid_block.resnets.0", channels, channels, scale);
        let attention = config
            .add_attention
            .then(|| self.attention("mid_block.attentions.0", channels, config.mid_attention_groups(), scale));
        let second = self.residual("mid_block.resnets.1", channels, channels, scale);
        Mid { first, attention, second }
    }

    /// The i-th level on the way up; level 0 is the lowest resolution.
    fn up(&mut self, i: usize) -> Up {
        let config = self.config;
        let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let block = format!("up_blocks.{i}");
        let attends = config.up_block_types[i] == UpBlock::Attention;
        let c_out = channels[i];
        // The skips of a level come last first: its own layers', then what entered it.
        let entering = channels[(i + 1).min(config.levels() - 1)];
        let layers = (0..=config.layers_per_block)
            .map(|j| {
                let from_below = if j == 0 { channels[i.saturating_sub(1)] } else { c_out };
                let skip = if j == config.layers_per_block { entering } else { c_out };
                self.layer(&block, j, from_below + skip, c_out, attends)
            })
            .collect();
        let upsample =
            (i + 1 < config.levels()).then(|| Upsample::new(self.layout.at(&format!("{block}.upsamplers.0")), c_out));
        Up { layers, upsample }
    }
}
