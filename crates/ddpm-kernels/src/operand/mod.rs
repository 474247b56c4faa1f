//! How operations fuse without a graph compiler: an input is an [`Operand`], a description of how a value follows from
//! stored tensors, applied while it is loaded; an output passes an [`Epilogue`] before it is stored.

pub(crate) mod cpu;
pub(crate) mod cuda;

use ddpm_tensor::random::Address;
use ddpm_tensor::{Device, Tensor, View};

use crate::{KernelError, error::expect};

/// A value `[N, H, W, C]` that is never stored: `parts` concatenated along C, then normalised, scaled and shifted,
/// activated, dropped out and enlarged, in this order.
#[derive(Debug)]
pub struct Operand<'a, B: Device> {
    /// What is stored.
    pub parts: Parts<'a, B>,
    /// Group normalisation (Wu and He 2018), if any.
    pub norm: Option<Norm<'a, B>>,
    /// Whether SiLU follows: `v · sigmoid(v)`.
    pub silu: bool,
    /// Dropout, if any.
    pub dropout: Option<Dropout>,
    /// Whether each pixel is then repeated to 2x2.
    pub nearest_2x: bool,
}

/// One tensor `[N, H, W, C]`, or two that are read as their concatenation along C.
#[derive(Debug)]
pub enum Parts<'a, B: Device> {
    /// A single tensor.
    One(View<'a, B>),
    /// `[N, H, W, C_1]` and `[N, H, W, C_2]`.
    Two(View<'a, B>, View<'a, B>),
}

/// Group normalisation: `n = γ·(v − mean)·rstd + β`; with `scale_shift`, `n·(1 + scale) + shift` of each image.
#[derive(Debug)]
pub struct Norm<'a, B: Device> {
    /// Number of groups; divides C.
    pub groups: usize,
    /// `[N, groups, 2]`: mean and `1/√(variance + eps)`, from [`Backend::norm_statistics`](crate::Backend::norm_statistics).
    pub statistics: View<'a, B>,
    /// γ, `[C]`.
    pub gamma: View<'a, B>,
    /// β, `[C]`.
    pub beta: View<'a, B>,
    /// `[N, 2C]`: first the scales, then the shifts.
    pub scale_shift: Option<View<'a, B>>,
}

/// What a norm is made of besides its statistics.
#[derive(Debug)]
pub struct NormParameters<'a, B: Device> {
    /// γ, `[C]`.
    pub gamma: View<'a, B>,
    /// β, `[C]`.
    pub beta: View<'a, B>,
    /// `[N, 2C]`: first the scales, then the shifts.
    pub scale_shift: Option<View<'a, B>>,
}

impl<B: Device> NormParameters<'_, B> {
    /// Fails unless they are those of C channels and N images.
    pub(crate) fn check(&self, operation: &'static str, n: usize, c: usize) -> Result<(), KernelError> {
        expect(operation, "gamma", [c], self.gamma.shape())?;
        expect(operation, "beta", [c], self.beta.shape())?;
        match self.scale_shift {
            Some(s) => expect(operation, "scale_shift", [n, 2 * c], s.shape()),
            None => Ok(()),
        }
    }
}

/// Inverted dropout: an element is kept, and multiplied by `1/(1 − probability)`, if its addressed uniform number is at
/// least `probability`. Element and sample are those of the operand before enlarging: sample = `address.sample` + image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// In `[0, 1)`.
    pub probability: f32,
    /// Where the random numbers come from; its sample is the first image's.
    pub address: Address,
}

/// What happens to a result `[N, H, W, C]` before it is stored: `y = (result + bias + channel + residual) · scale`.
#[derive(Debug)]
pub struct Epilogue<'a, B: Device> {
    /// `[C]`.
    pub bias: Option<View<'a, B>>,
    /// `[N, C]`: a time embedding, say.
    pub channel: Option<View<'a, B>>,
    /// `[N, H, W, C]`: the shortcut, say.
    pub residual: Option<View<'a, B>>,
    /// 1, or what diffusers calls the inverse of `output_scale_factor`.
    pub scale: f32,
    /// Whether to leave the statistics of y for a later norm.
    pub statistics: bool,
}

macro_rules! copy {
    ($($name:ident),*) => {$(
        #[allow(clippy::expl_impl_clone_on_copy)] // deriving would ask for B: Copy
        impl<B: Device> Clone for $name<'_, B> {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<B: Device> Copy for $name<'_, B> {}
    )*};
}

copy!(Operand, Parts, Norm, Epilogue);

impl<B: Device> Default for Epilogue<'_, B> {
    fn default() -> Self {
        Self { bias: None, channel: None, residual: None, scale: 1.0, statistics: false }
    }
}

/// What an operation leaves.
#[derive(Debug)]
pub struct Output<B: Device> {
    /// The result after its epilogue.
    pub y: Tensor<B>,
    /// `[N, C, 2]`, mean and M2 = Σ(y − mean)² of each image and channel, if the epilogue asked for it.
    pub statistics: Option<Tensor<B>>,
}

/// The gradient of an operand's stored parts, up to what its norm still needs.
///
/// Without a norm `g` is the gradient of the concatenated parts; with one it is the gradient of the normalised value x̂
/// (dropout, SiLU', scale and γ are applied), and [`Backend::operand_grad`](crate::Backend::operand_grad) finishes.
#[derive(Debug)]
pub struct Pulled<B: Device> {
    /// `[N, H, W, C]`, at the size before enlarging.
    pub g: Tensor<B>,
    /// `[N, C, 2]` with a norm: Σ dn and Σ dn·x̂ over pixels, dn being the gradient of `γ·x̂ + β` (after scale-shift).
    pub sums: Option<Tensor<B>>,
}

impl<'a, B: Device> Operand<'a, B> {
    /// A stored tensor as it is.
    pub fn plain(x: View<'a, B>) -> Self {
        Self { parts: Parts::One(x), norm: None, silu: false, dropout: None, nearest_2x: false }
    }

    /// Two tensors, concatenated along C.
    pub fn concat(a: View<'a, B>, b: View<'a, B>) -> Self {
        Self { parts: Parts::Two(a, b), ..Self::plain(a) }
    }

    /// The same, normalised.
    pub fn norm(self, norm: Norm<'a, B>) -> Self {
        Self { norm: Some(norm), ..self }
    }

    /// The same, activated by SiLU.
    pub fn silu(self) -> Self {
        Self { silu: true, ..self }
    }

    /// The same with dropout, if any.
    pub fn dropout(self, dropout: Option<Dropout>) -> Self {
        Self { dropout: dropout.filter(|d| d.probability > 0.0), ..self }
    }

    /// The same with each pixel repeated to 2x2.
    pub fn nearest_2x(self) -> Self {
        Self { nearest_2x: true, ..self }
    }

    /// `[N, H, W, C]` of the stored parts together, before enlarging.
    pub fn stored(&self) -> [usize; 4] {
        match self.parts {
            Parts::One(x) => x.shape().nhwc(),
            Parts::Two(a, b) => {
                let [n, h, w, c] = a.shape().nhwc();
                [n, h, w, c + b.shape().nhwc()[3]]
            }
        }
    }

    /// `[N, H, W, C]` of the value.
    pub fn size(&self) -> [usize; 4] {
        let [n, h, w, c] = self.stored();
        if self.nearest_2x { [n, 2 * h, 2 * w, c] } else { [n, h, w, c] }
    }

    /// Whether the value is the stored single tensor itself.
    pub fn is_plain(&self) -> bool {
        matches!(self.parts, Parts::One(_))
            && self.norm.is_none()
            && !self.silu
            && self.dropout.is_none()
            && !self.nearest_2x
    }

    /// Fails unless all the parts fit each other.
    pub(crate) fn check(&self, operation: &'static str) -> Result<(), KernelError> {
        let [n, h, w, c] = self.stored();
        if let Parts::Two(_, b) = self.parts {
            let cb = b.shape().nhwc()[3];
            expect(operation, "the second part", [n, h, w, cb], b.shape())?;
        }
        if let Some(norm) = &self.norm {
            if norm.groups == 0 || !c.is_multiple_of(norm.groups) {
                let what = format!("{c} channels cannot be normalised in {} groups", norm.groups);
                return Err(KernelError::Setting { operation, what });
            }
            expect(operation, "the norm's statistics", [n, norm.groups, 2], norm.statistics.shape())?;
            expect(operation, "gamma", [c], norm.gamma.shape())?;
            expect(operation, "beta", [c], norm.beta.shape())?;
            if let Some(s) = norm.scale_shift {
                expect(operation, "scale_shift", [n, 2 * c], s.shape())?;
            }
        }
        if let Some(d) = self.dropout
            && !(0.0..1.0).contains(&d.probability)
        {
            let what = format!("a dropout probability is in [0, 1), not {}", d.probability);
            return Err(KernelError::Setting { operation, what });
        }
        Ok(())
    }
}

impl<B: Device> Epilogue<'_, B> {
    /// Fails unless every part fits a result of this size.
    pub(crate) fn check(&self, operation: &'static str, size: [usize; 4]) -> Result<(), KernelError> {
        let [n, _, _, c] = size;
        if let Some(b) = self.bias {
            expect(operation, "the bias", [c], b.shape())?;
        }
        if let Some(v) = self.channel {
            expect(operation, "the vector per channel", [n, c], v.shape())?;
        }
        if let Some(r) = self.residual {
            expect(operation, "the residual", size, r.shape())?;
        }
        Ok(())
    }
}
