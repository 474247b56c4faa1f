//! Vectors of channels: the registers of an instruction set, or plain arrays.

use ddpm_tensor::Element;

/// Some numbers that are computed together. All kinds round alike, so that no bit depends on which is taken.
///
/// Those of an instruction set may be used only in functions that are compiled for it.
pub(super) trait Vector: Copy {
    type T: Element;
    /// How many numbers.
    const LANES: usize;

    /// # Safety
    /// `LANES` numbers must be readable there.
    unsafe fn load(from: *const Self::T) -> Self;

    /// # Safety
    /// `LANES` numbers must be writable there.
    unsafe fn store(self, to: *mut Self::T);

    /// The same number in all lanes.
    fn all(value: f64) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self · a + b`, rounded once.
    fn fma(self, a: Self, b: Self) -> Self;
}

/// What any machine has.
#[derive(Clone, Copy)]
pub(super) struct Plain<T>([T; 4]);

impl<T: Element> Plain<T> {
    #[inline(always)]
    fn with(self, other: Self, f: impl Fn(T, T) -> T) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl<T: Element> Vector for Plain<T> {
    type T = T;
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[T; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[T; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    fn all(value: f64) -> Self {
        Self([T::of(value); 4])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.with(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.with(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.with(other, |a, b| a * b)
    }

    #[inline(always)]
    fn fma(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].fma(a.0[i], b.0[i])))
    }
}

/// Vectors of f32 in the registers of an instruction set.
#[cfg(target_arch = "x86_64")]
macro_rules! registers {
    ($vector:ident, $lanes:literal, $load:ident, $store:ident, $all:ident, $add:ident, $sub:ident, $mul:ident, $fma:ident) => {
        impl Vector for std::arch::x86_64::$vector {
            type T = f32;
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: the caller's promise; used only where the set is there, as the trait asks.
                unsafe { std::arch::x86_64::$load(from) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$store(to, self) }
            }

            #[inline(always)]
            fn all(value: f64) -> Self {
                // SAFETY: used only where the set is there, as the trait asks.
                unsafe { std::arch::x86_64::$all(value as f32) }
            }

            #[inline(always)]
            fn add(self, other: Self) -> Self {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$add(self, other) }
            }

            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$sub(self, other) }
            }

            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$mul(self, other) }
            }

            #[inline(always)]
            fn fma(self, a: Self, b: Self) -> Self {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$fma(self, a, b) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
registers!(
    __m512,
    16,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    _mm512_fmadd_ps
);
#[cfg(target_arch = "x86_64")]
registers!(
    __m256,
    8,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_fmadd_ps
);
