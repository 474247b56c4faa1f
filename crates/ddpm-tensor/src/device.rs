use std::fmt::{self, Debug};
use std::ops::Range;
use std::str::FromStr;

use crate::{Element, TensorError};

/// Something that holds buffers of one number type; a cheap handle, cloned freely.
///
/// Buffers are dense; a fresh one holds what was there before (never anything uninitialised).
pub trait Device: Clone + Debug + Send + Sync + 'static {
    /// Number type of every buffer.
    type Elem: Element;
    /// Memory of this device.
    type Buffer: Debug + Send + Sync;

    /// A buffer of `len` elements with unspecified values.
    ///
    /// # Errors
    /// When the device has no memory left.
    fn alloc(&self, len: usize) -> Result<Self::Buffer, TensorError>;
    /// A buffer of `len` zeros.
    ///
    /// # Errors
    /// When the device has no memory left.
    fn zeros(&self, len: usize) -> Result<Self::Buffer, TensorError>;
    /// Number of elements of a buffer.
    fn len(buffer: &Self::Buffer) -> usize;
    /// Copies host numbers to `to[offset..]`.
    ///
    /// # Errors
    /// When they do not fit, or the device fails.
    fn upload(&self, from: &[Self::Elem], to: &mut Self::Buffer, offset: usize) -> Result<(), TensorError>;
    /// Copies `from[range]` to the host.
    ///
    /// # Errors
    /// When the lengths differ, or the device fails.
    fn download(&self, from: &Self::Buffer, range: Range<usize>, to: &mut [Self::Elem]) -> Result<(), TensorError>;
    /// Copies `from[range]` to `to[offset..]` on the device.
    ///
    /// # Errors
    /// When they do not fit, or the device fails.
    fn copy(
        &self,
        from: &Self::Buffer,
        range: Range<usize>,
        to: &mut Self::Buffer,
        offset: usize,
    ) -> Result<(), TensorError>;

    /// Operations may keep what they make of these numbers (packed weights, say) from now on, where the device gains by it:
    /// see [`Frozen`].
    fn freeze(_buffer: &Self::Buffer) {}

    /// Takes back one [`freeze`](Self::freeze); after the last, what was kept is dropped.
    fn thaw(_buffer: &Self::Buffer) {}
}

/// A promise that numbers do not change while this is alive, which the borrow enforces: operations keep what they make of them
/// instead of making it each time (on the CPU, up to 1 GiB for each buffer). No result depends on it.
#[derive(Debug)]
#[must_use = "numbers are frozen while this is alive"]
pub struct Frozen<'a, D: Device>(&'a D::Buffer);

impl<'a, D: Device> Frozen<'a, D> {
    /// Freezes a buffer; it may be frozen several times.
    pub fn new(buffer: &'a D::Buffer) -> Self {
        D::freeze(buffer);
        Self(buffer)
    }
}

impl<D: Device> Drop for Frozen<'_, D> {
    fn drop(&mut self) {
        D::thaw(self.0);
    }
}

/// How products are computed, a property of the device handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// f32 multiply-add in every product, sums in blocks of at most 1024.
    Strict,
    /// f32 with faster algorithms where there are any, relative error of an operation at most 8e-6.
    #[default]
    F32,
    /// Convolutions and dense layers may multiply numbers rounded to bf16 and sum in f32 where that is faster, relative error of an
    /// operation at most 4e-3; all else is as in `F32`. Only where the machine has a unit for it: elsewhere it is `F32`.
    Bf16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = TensorError;

    fn from_str(name: &str) -> Result<Self, TensorError> {
        match name {
            "strict" => Ok(Self::Strict),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(TensorError::Precision { name: name.into() }),
        }
    }
}
