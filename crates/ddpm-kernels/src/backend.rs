use std::ops::Range;

use ddpm_tensor::random::Address;
use ddpm_tensor::{Device, Shape, Tensor, View};

use crate::KernelError;
use crate::adamw::AdamWStep;
use crate::conv::{self, Along, ConvGrad, Geometry, OperandGrad, ParameterGrads};
use crate::loss::{LossGrad, LossKind};
use crate::operand::{Epilogue, NormParameters, Operand, Output, Pulled};
use crate::posterior::StepCoefficients;

type Result<T> = std::result::Result<T, KernelError>;

/// Every operation that a diffusion network and its training need; one implementation for each kind of device.
///
/// All tensors are dense and row-major, images `[N, H, W, C]`, weights of a convolution `[kernel, kernel, C_in, C_out]`.
/// Gradients of parameters are *added* to a range of a flat buffer; gradients of activations are returned.
/// Sums over a batch run in groups of 16 images whose sums are added in order, so that micro-batches of a multiple of 16
/// give the bits of the whole batch; no result depends on the number of threads.
///
/// # Errors
/// Every method fails with [`KernelError`] when shapes do not fit each other or the device fails.
#[allow(clippy::missing_errors_doc)] // said once above for all of them
pub trait Backend: Device {
    // --- products ---------------------------------------------------------------------------------------------

    /// Convolution: `y[n,p,o] = epilogue(Σ_{tap,c} x[n, s·p + tap − pad, c] · w[tap,c,o])`.
    ///
    /// # Shapes
    /// `x [N,H,W,C]`, `w [k,k,C,O]` → `y [N,H',W',O]`, see [`Geometry::output`]. A dense layer is a 1x1 convolution of
    /// `[N,1,1,C]`.
    fn conv(
        &self,
        x: &Operand<'_, Self>,
        w: View<'_, Self>,
        g: Geometry,
        e: &Epilogue<'_, Self>,
    ) -> Result<Output<Self>>;

    /// Gradient of a convolution with respect to its operand: `dy [N,H',W',O]` → [`Pulled`] of the operand's stored size.
    fn conv_input_grad(
        &self,
        dy: View<'_, Self>,
        w: View<'_, Self>,
        g: Geometry,
        x: &Operand<'_, Self>,
    ) -> Result<Pulled<Self>>;

    /// Gradient of a convolution with respect to its weights, added to `grads[dw]` (`[k,k,C,O]`).
    fn conv_weight_grad(
        &self,
        dy: View<'_, Self>,
        x: &Operand<'_, Self>,
        g: Geometry,
        grads: &mut Self::Buffer,
        dw: Range<usize>,
    ) -> Result<()>;

    /// [`Backend::conv_weight_grad`], and the gradient of the bias, added to `grads[db]`; `dy_sums [N, O]` are dy's pixel sums,
    /// where they are known.
    #[allow(clippy::too_many_arguments)] // a convolution has many parts
    fn conv_parameter_grads(
        &self,
        dy: View<'_, Self>,
        dy_sums: Option<View<'_, Self>>,
        x: &Operand<'_, Self>,
        g: Geometry,
        grads: &mut Self::Buffer,
        dw: Range<usize>,
        db: Range<usize>,
    ) -> Result<()> {
        self.conv_weight_grad(dy, x, g, grads, dw)?;
        match dy_sums {
            Some(rows) => self.batch_sums(rows, grads, db),
            None => self.batch_sums(self.pixel_sums(dy)?.view(), grads, db),
        }
    }

    /// The whole way back from convolutions of one operand (several: their gradients with respect to it are added): the gradients
    /// of weights, biases and the operand's norm, if wanted, and those of its stored parts, to which is added what comes
    /// `along`; with `sums` also the sums over pixels of the first part's. It is [`Backend::conv_weight_grad`],
    /// [`Backend::batch_sums`], [`Backend::conv_input_grad`], [`Backend::norm_param_grad`] and [`Backend::operand_grad`] in
    /// turn, up to rounding.
    fn conv_backward(
        &self,
        products: &[ConvGrad<'_, Self>],
        g: Geometry,
        x: &Operand<'_, Self>,
        along: Along<Self>,
        grads: Option<ParameterGrads<'_, Self>>,
        sums: bool,
    ) -> Result<OperandGrad<Self>> {
        conv::backward::in_turn(self, products, g, x, along, grads, sums)
    }

    /// Softmax attention with `heads` heads: `o = softmax(q·kᵀ·scale)·v` (Vaswani et al. 2017, eq. 1).
    ///
    /// # Shapes
    /// `q, k, v [N,P,C]` (or `[N,H,W,C]`, P = H·W) → `o` alike; head h owns channels `h·C/heads..(h+1)·C/heads`.
    fn attention(
        &self,
        q: View<'_, Self>,
        k: View<'_, Self>,
        v: View<'_, Self>,
        heads: usize,
        scale: f32,
    ) -> Result<Tensor<Self>>;

    /// Gradients `(dq, dk, dv)` of [`Backend::attention`], the weights recomputed.
    fn attention_grad(
        &self,
        q: View<'_, Self>,
        k: View<'_, Self>,
        v: View<'_, Self>,
        d_o: View<'_, Self>,
        heads: usize,
        scale: f32,
    ) -> Result<[Tensor<Self>; 3]>;

    // --- operands ---------------------------------------------------------------------------------------------

    /// The operand's value, stored: `[N,H,W,C]`.
    fn operand_value(&self, x: &Operand<'_, Self>) -> Result<Tensor<Self>>;

    /// The gradient of an operand's value `dv` (its [`Operand::size`]), pulled back through enlarging, dropout, SiLU and γ.
    fn operand_pull(&self, dv: View<'_, Self>, x: &Operand<'_, Self>) -> Result<Pulled<Self>>;

    /// Gradients of the stored parts: finishes the norm (`dx = rstd·(g − mean(g) − x̂·mean(g·x̂))` in each group), splits a
    /// concatenation, and adds what is given for each part (the gradient along a shortcut, say).
    ///
    /// Returns one tensor for [`Parts::One`](crate::Parts::One), two for [`Parts::Two`](crate::Parts::Two).
    fn operand_grad(
        &self,
        x: &Operand<'_, Self>,
        pulled: Pulled<Self>,
        add: [Option<View<'_, Self>>; 2],
    ) -> Result<(Tensor<Self>, Option<Tensor<Self>>)>;

    /// Gradients of the norm's own parameters, added to `grads[d_gamma]` and `grads[d_beta]`; returns the gradient of
    /// `scale_shift` (`[N, 2C]`) where there is one. `sums` are [`Pulled::sums`].
    fn norm_param_grad(
        &self,
        x: &Operand<'_, Self>,
        sums: View<'_, Self>,
        grads: &mut Self::Buffer,
        d_gamma: Range<usize>,
        d_beta: Range<usize>,
    ) -> Result<Option<Tensor<Self>>>;

    // --- statistics and sums ----------------------------------------------------------------------------------

    /// Mean and M2 of each image and channel, `[N,C,2]`, of a tensor whose producer left none.
    fn channel_statistics(&self, x: View<'_, Self>) -> Result<Tensor<Self>>;

    /// Mean and `1/√(variance + eps)` of each image and group, `[N, groups, 2]`, from the channel statistics of one tensor
    /// or of two that are concatenated, merged in the order of channels (Chan et al. 1983). `pixels` = H·W.
    fn norm_statistics(
        &self,
        parts: [Option<View<'_, Self>>; 2],
        pixels: usize,
        groups: usize,
        eps: f64,
    ) -> Result<Tensor<Self>>;

    /// [`Backend::norm_statistics`] for a norm with these parameters, which a device may need to know early.
    fn norm_statistics_for(
        &self,
        parts: [Option<View<'_, Self>>; 2],
        pixels: usize,
        groups: usize,
        eps: f64,
        _norm: &NormParameters<'_, Self>,
    ) -> Result<Tensor<Self>> {
        self.norm_statistics(parts, pixels, groups, eps)
    }

    /// Sums over the pixels of each image: `[N,H,W,C]` → `[N,C]`.
    fn pixel_sums(&self, x: View<'_, Self>) -> Result<Tensor<Self>>;

    /// Adds the sum over the images of `rows [N,C]` to `grads[range]`, in groups of 16 images.
    fn batch_sums(&self, rows: View<'_, Self>, grads: &mut Self::Buffer, range: Range<usize>) -> Result<()>;

    /// Rows of a table `[K,C]`: `[N,C]`.
    fn gather_rows(&self, table: View<'_, Self>, indices: &[usize]) -> Result<Tensor<Self>>;

    /// The adjoint of [`Backend::gather_rows`], added to `grads[range]` (`[K,C]`), in groups of 16 images.
    fn scatter_rows(
        &self,
        rows: View<'_, Self>,
        indices: &[usize],
        grads: &mut Self::Buffer,
        range: Range<usize>,
    ) -> Result<()>;

    /// `y += factor·x`, elementwise.
    fn add_scaled(&self, y: &mut Tensor<Self>, factor: f64, x: View<'_, Self>) -> Result<()>;

    /// `y = factor·x + shift`, elementwise.
    fn affine(&self, x: View<'_, Self>, factor: f64, shift: f64) -> Result<Tensor<Self>>;

    // --- diffusion --------------------------------------------------------------------------------------------

    /// Standard normal numbers `[N, …]`; image n is at sample `address.sample + n`.
    fn normals(&self, shape: Shape, address: Address) -> Result<Tensor<Self>>;

    /// The forward process in closed form, with noise that it makes itself (Ho et al. 2020, eq. 4):
    /// `x_t = √ᾱ·x_0 + √(1−ᾱ)·ε`; `coefficients[n] = (√ᾱ, √(1−ᾱ))` of image n. Returns `(x_t, ε)`.
    fn noise(
        &self,
        x_0: View<'_, Self>,
        coefficients: &[(f32, f32)],
        address: Address,
    ) -> Result<(Tensor<Self>, Tensor<Self>)>;

    /// One step of a sampler (see [`StepCoefficients`]): `(x_{t−1}, x̂_0)`, x̂_0 if asked for.
    fn reverse_step(
        &self,
        x: View<'_, Self>,
        output: View<'_, Self>,
        c: &StepCoefficients,
        address: Address,
        x_0: bool,
    ) -> Result<(Tensor<Self>, Option<Tensor<Self>>)>;

    /// Mean loss of each image and the gradient `d_output = weights[n]·loss'(output − target)·scale`.
    ///
    /// `scale` is 1 over the number of elements of the *whole* batch for a mean, so that micro-batches add up.
    fn loss(
        &self,
        kind: LossKind,
        output: View<'_, Self>,
        target: View<'_, Self>,
        weights: &[f32],
        scale: f64,
    ) -> Result<LossGrad<Self>>;

    // --- optimiser --------------------------------------------------------------------------------------------

    /// Σ x², in blocks of fixed size that are added in order in f64.
    fn squared_norm(&self, x: &Self::Buffer) -> Result<f64>;

    /// One step of AdamW (Loshchilov and Hutter 2019) and of the EMA, in one pass; the gradients are zeroed.
    fn adamw(
        &self,
        step: &AdamWStep,
        parameters: &mut Self::Buffer,
        grads: &mut Self::Buffer,
        m: &mut Self::Buffer,
        v: &mut Self::Buffer,
        ema: &mut Self::Buffer,
    ) -> Result<()>;
}
