use std::fmt::{Debug, Display};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

use crate::math;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A number type of tensors: `f32` everywhere, `f64` where finite differences check a backward pass.
pub trait Element:
    sealed::Sealed
    + bytemuck::Pod
    + Copy
    + Debug
    + Display
    + Default
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + Sum
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// The nearest number of this type.
    fn of(value: f64) -> Self;
    /// The nearest number of this type (exact for both).
    fn of_f32(value: f32) -> Self;
    /// The same number in `f64` (exact for both).
    fn to_f64(self) -> f64;
    /// The nearest `f32`.
    fn to_f32(self) -> f32;
    /// `self · a + b`, rounded once.
    fn fma(self, a: Self, b: Self) -> Self;
    /// Square root, correctly rounded.
    fn sqrt(self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// e^self: our own polynomial in `f32` (the same bits on every machine), `libm`'s in `f64`.
    fn exp(self) -> Self;
    /// The same slice as `f32`, where it is one.
    fn as_f32(slice: &[Self]) -> Option<&[f32]> {
        bytemuck::try_cast_slice(slice).ok().filter(|_| size_of::<Self>() == 4)
    }
    /// The same slice as `f32`, where it is one.
    fn as_f32_mut(slice: &mut [Self]) -> Option<&mut [f32]> {
        if size_of::<Self>() == 4 { bytemuck::try_cast_slice_mut(slice).ok() } else { None }
    }
    /// 1 / (1 + e^−self), made like `exp`.
    fn sigmoid(self) -> Self;
}

macro_rules! element {
    ($t:ty, $exp:path, $sigmoid:path) => {
        impl Element for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            #[inline(always)]
            fn of(value: f64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn of_f32(value: f32) -> Self {
                value as $t
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn to_f32(self) -> f32 {
                self as f32
            }
            #[inline(always)]
            fn fma(self, a: Self, b: Self) -> Self {
                self.mul_add(a, b)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            #[inline(always)]
            fn abs(self) -> Self {
                self.abs()
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $exp(self)
            }
            #[inline(always)]
            fn sigmoid(self) -> Self {
                $sigmoid(self)
            }
        }
    };
}

fn sigmoid_f64(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

element!(f32, math::exp, math::sigmoid);
element!(f64, libm::exp, sigmoid_f64);
