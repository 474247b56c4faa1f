//! Convolutions 3x3 and 1x1 (and with it dense layers) in all three directions.

pub(crate) mod backward;
pub(crate) mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use backward::{Along, ConvGrad, OperandGrad, ParameterGrads};

use crate::KernelError;

/// Where the zeros around an image go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// On all sides, `(kernel − 1)/2` of them: the size stays, with stride 1.
    Same,
    /// One row below and one column to the right only: diffusers' `downsample_padding=0`.
    End,
}

/// Shape of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// 1 or 3.
    pub kernel: usize,
    /// 1 or 2.
    pub stride: usize,
    /// Zeros around the image; `Same` for 1x1.
    pub padding: Padding,
}

impl Geometry {
    /// 1x1: a dense layer for each pixel.
    pub const ONE: Self = Self { kernel: 1, stride: 1, padding: Padding::Same };
    /// 3x3 that keeps the size.
    pub const THREE: Self = Self { kernel: 3, stride: 1, padding: Padding::Same };

    /// 3x3 that halves the size.
    pub fn down(padding: Padding) -> Self {
        Self { kernel: 3, stride: 2, padding }
    }

    /// Zeros before the first row and column.
    pub fn before(self) -> usize {
        match self.padding {
            Padding::Same => (self.kernel - 1) / 2,
            Padding::End => 0,
        }
    }

    /// Zeros after the last row and column.
    pub fn after(self) -> usize {
        match self.padding {
            Padding::Same => (self.kernel - 1) / 2,
            Padding::End => 1,
        }
    }

    /// Height and width of the result for an operand of `h` by `w`.
    ///
    /// # Errors
    /// For another kernel or stride, or an image smaller than the kernel.
    pub fn output(self, h: usize, w: usize) -> Result<(usize, usize), KernelError> {
        let known = matches!((self.kernel, self.padding), (1, Padding::Same) | (3, _)) && matches!(self.stride, 1 | 2);
        let around = self.before() + self.after();
        if !known || h + around < self.kernel || w + around < self.kernel {
            let what = format!("{self:?} cannot be applied to an image of {h}x{w}");
            return Err(KernelError::Setting { operation: "conv", what });
        }
        let size = |s: usize| (s + around - self.kernel) / self.stride + 1;
        Ok((size(h), size(w)))
    }
}
