use ddpm_kernels::conv::{Along, Geometry, OperandGrad, ParameterGrads};
use ddpm_kernels::{Backend, Dropout, Epilogue, Operand};
use ddpm_tensor::{Tensor, View};

use crate::config::TimeScaleShift;
use crate::layers::{Conv, Dense, FeatureMap, GroupNorm, MapGrad, SharedMap};
use crate::layout::{Init, Scope};
use crate::{Mode, Parameters, Result};

/// A residual block (Ho et al. 2020, appendix B), two convolutions with all the rest fused into them:
///
/// `h = conv1(SiLU(norm1(x))) + time_emb_proj(SiLU(temb))`, `y = (conv2(dropout(SiLU(norm2(h)))) + shortcut(x))·scale`.
///
/// With scale-shift the time embedding enters as `norm2(h)·(1 + scale) + shift` instead of the sum. The shortcut is a
/// 1x1 convolution where the number of channels changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Residual {
    norm1: GroupNorm,
    conv1: Conv,
    time_emb_proj: Dense,
    norm2: GroupNorm,
    conv2: Conv,
    conv_shortcut: Option<Conv>,
    options: ResidualOptions,
    layer: usize,
}

/// What the residual blocks of a network have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResidualOptions {
    /// Width of the time embedding.
    pub temb: usize,
    /// Groups of both normalisations.
    pub groups: usize,
    /// Added to the variances.
    pub eps: f64,
    /// How the time embedding enters.
    pub time_scale_shift: TimeScaleShift,
    /// Probability of dropout before the second convolution, `[0, 1)`.
    pub dropout: f64,
    /// Factor of the block's output: 1 over diffusers' `output_scale_factor`.
    pub scale: f32,
}

/// What a residual block reads: one tensor, or the concatenation of two, the second a skip connection.
#[derive(Debug)]
pub struct ResidualInput<B: Backend> {
    /// What comes from the layer before.
    pub first: SharedMap<B>,
    /// What comes along a skip connection.
    pub skip: Option<SharedMap<B>>,
}

impl<B: Backend> ResidualInput<B> {
    fn operand(&self) -> Operand<'_, B> {
        match &self.skip {
            Some(skip) => Operand::concat(self.first.x.view(), skip.x.view()),
            None => Operand::plain(self.first.x.view()),
        }
    }
}

/// The time embedding that blocks read, and what they leave for its gradient: all of their projections go back together.
#[derive(Debug)]
pub struct Temb<'a, B: Backend> {
    value: View<'a, B>,
    /// Each block's projection, and the gradient of its result.
    projected: Vec<(Dense, Tensor<B>)>,
}

impl<'a, B: Backend> Temb<'a, B> {
    /// Of a time embedding `[N, 1, 1, temb]`.
    pub fn new(value: View<'a, B>) -> Self {
        Self { value, projected: Vec::new() }
    }

    /// The gradient of the time embedding after all blocks' backward passes; adds those of the blocks' projections. None if no
    /// block left anything.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn backward(
        self,
        backend: &B,
        parameters: &Parameters<B>,
        grads: &mut Parameters<B>,
    ) -> Result<Option<Tensor<B>>> {
        if self.projected.is_empty() {
            return Ok(None);
        }
        let mut products = Vec::new();
        for (layer, d) in &self.projected {
            // a single pixel is its own sum
            products.push(layer.seen_from(parameters, d.view(), Some(d.view()))?);
        }
        let (silu, none) = (Operand::plain(self.value).silu(), Along::default());
        let grads = ParameterGrads { buffer: grads.buffer_mut(), norm: None };
        Ok(Some(backend.conv_backward(&products, Geometry::ONE, &silu, none, Some(grads), false)?.first))
    }
}

/// What [`Residual::backward`] needs of the forward pass: x, h and their statistics, nothing else.
#[derive(Debug)]
pub struct ResidualCache<B: Backend> {
    x: ResidualInput<B>,
    x_statistics: Tensor<B>,
    h: Tensor<B>,
    h_statistics: Tensor<B>,
    scale_shift: Option<Tensor<B>>,
    dropout: Option<Dropout>,
}

impl Residual {
    /// Adds `norm1`, `conv1`, `time_emb_proj`, `norm2`, `conv2` and, where the channels differ, `conv_shortcut` at a
    /// place of a layout. `layer` numbers the block's dropout among the network's, see [`Mode::dropout`].
    pub fn new(mut at: Scope<'_>, c_in: usize, c_out: usize, options: ResidualOptions, layer: usize) -> Self {
        let ResidualOptions { temb, groups, eps, time_scale_shift, .. } = options;
        let projected = match time_scale_shift {
            TimeScaleShift::Default => c_out,
            TimeScaleShift::ScaleShift => 2 * c_out,
        };
        Self {
            norm1: GroupNorm::new(at.at("norm1"), c_in, groups, eps),
            conv1: Conv::new(at.at("conv1"), Geometry::THREE, c_in, c_out, Init::PAPER),
            time_emb_proj: Dense::new(at.at("time_emb_proj"), temb, projected, Init::PAPER),
            norm2: GroupNorm::new(at.at("norm2"), c_out, groups, eps),
            conv2: Conv::new(at.at("conv2"), Geometry::THREE, c_out, c_out, Init::PAPER_ZERO),
            conv_shortcut: (c_in != c_out)
                .then(|| Conv::new(at.at("conv_shortcut"), Geometry::ONE, c_in, c_out, Init::PAPER)),
            options,
            layer,
        }
    }

    fn operand_1<'a, B: Backend>(
        &self,
        parameters: &'a Parameters<B>,
        x: &'a ResidualInput<B>,
        statistics: &'a Tensor<B>,
    ) -> Result<Operand<'a, B>> {
        Ok(x.operand().norm(self.norm1.norm(parameters, statistics, None)?).silu())
    }

    fn operand_2<'a, B: Backend>(
        &self,
        parameters: &'a Parameters<B>,
        h: &'a Tensor<B>,
        statistics: &'a Tensor<B>,
        scale_shift: Option<&'a Tensor<B>>,
        dropout: Option<Dropout>,
    ) -> Result<Operand<'a, B>> {
        let norm = self.norm2.norm(parameters, statistics, scale_shift)?;
        Ok(Operand::plain(h.view()).norm(norm).silu().dropout(dropout))
    }

    /// `[N, H, W, C_in]`, `temb [N, 1, 1, temb]` → `[N, H, W, C_out]`; `statistics`: whether a norm reads the result.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn forward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        x: ResidualInput<B>,
        temb: View<'_, B>,
        statistics: bool,
        mode: Mode,
    ) -> Result<(FeatureMap<B>, Option<ResidualCache<B>>)> {
        let projected =
            self.time_emb_proj.forward(backend, parameters, &Operand::plain(temb).silu(), Epilogue::default())?.y;
        let [n, _, _, c] = projected.shape().nhwc();
        let projected = projected.reshape([n, c])?;
        let (channel, scale_shift) = match self.options.time_scale_shift {
            TimeScaleShift::Default => (Some(projected), None),
            TimeScaleShift::ScaleShift => (None, Some(projected)),
        };

        let x_statistics = self.norm1.statistics(backend, parameters, &x.first, x.skip.as_deref(), None)?;
        let operand = self.operand_1(parameters, &x, &x_statistics)?;
        let epilogue =
            Epilogue { channel: channel.as_ref().map(Tensor::view), statistics: true, ..Epilogue::default() };
        let h = FeatureMap::from(self.conv1.forward(backend, parameters, &operand, epilogue)?);
        let h_statistics = self.norm2.statistics(backend, parameters, &h, None, scale_shift.as_ref())?;
        let h = h.x;

        let shortcut = match &self.conv_shortcut {
            Some(conv) => Some(conv.forward(backend, parameters, &x.operand(), Epilogue::default())?.y),
            None if x.skip.is_some() => Some(backend.operand_value(&x.operand())?),
            None => None,
        };
        let residual = shortcut.as_ref().unwrap_or(&x.first.x).view();
        let dropout = mode.dropout(self.options.dropout, self.layer);
        let operand = self.operand_2(parameters, &h, &h_statistics, scale_shift.as_ref(), dropout)?;
        let epilogue =
            Epilogue { residual: Some(residual), scale: self.options.scale, statistics, ..Epilogue::default() };
        let y = self.conv2.forward(backend, parameters, &operand, epilogue)?;
        let cache = mode.keeps().then(|| ResidualCache { x, x_statistics, h, h_statistics, scale_shift, dropout });
        Ok((y.into(), cache))
    }

    /// The gradients of the input's parts; `dy` is that of the result, `add` is added to the first part's. With
    /// gradients to add to, `temb` takes its share too.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn backward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        cache: ResidualCache<B>,
        dy: impl Into<MapGrad<B>>,
        add: Option<Tensor<B>>,
        temb: &mut Temb<'_, B>,
        mut grads: Option<&mut Parameters<B>>,
    ) -> Result<(MapGrad<B>, Option<Tensor<B>>)> {
        let ResidualCache { x, x_statistics, h, h_statistics, scale_shift, dropout } = cache;
        let MapGrad { d: dy, sums } = dy.into().scaled(backend, self.options.scale)?;
        // The biases of the second convolution and of the shortcut have the same gradient.
        let learns = grads.is_some();
        let dy_sums = match sums {
            None if learns => Some(backend.pixel_sums(dy.view())?),
            known => known,
        };
        let dy_sums = dy_sums.as_ref().map(Tensor::view);

        let operand = self.operand_2(parameters, &h, &h_statistics, scale_shift.as_ref(), dropout)?;
        let of_h = self.conv2.backward_to_parts(
            backend,
            parameters,
            &operand,
            Some(&self.norm2),
            (dy.view(), dy_sums),
            Along::default(),
            grads.as_deref_mut(),
            learns,
        )?;
        let dh = of_h.first;
        drop((h, h_statistics));

        let whole = match &self.conv_shortcut {
            Some(conv) => {
                let plain = x.operand();
                if let Some(grads) = grads.as_deref_mut() {
                    conv.parameter_grads(backend, &plain, dy.view(), dy_sums, grads)?;
                }
                let along = conv.input_grad(backend, parameters, &plain, dy.view())?.g;
                drop(dy);
                along
            }
            None => dy,
        };
        let operand = self.operand_1(parameters, &x, &x_statistics)?;
        let of_x = self.conv1.backward_to_parts(
            backend,
            parameters,
            &operand,
            Some(&self.norm1),
            (dh.view(), of_h.first_sums.as_ref().map(Tensor::view)),
            Along { whole: Some(whole), first: add },
            grads,
            learns,
        )?;
        if learns {
            // The time embedding is added to every pixel of h, or it is h's scale and shift.
            let d_projected = of_h.scale_shift.or(of_h.first_sums);
            temb.projected.extend(d_projected.map(|d| (self.time_emb_proj.clone(), d)));
        }
        let OperandGrad { first, first_sums, second, .. } = of_x;
        Ok((MapGrad { d: first, sums: first_sums }, second))
    }
}
