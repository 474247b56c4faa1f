//! Numbers as sums of two of bf16: in plain code, and with the machine's own conversions, which have the same bits.

/// Bits of the nearest bf16, ties to even; denormals become zero, and what is not a number stays so (as VCVTNEPS2BF16 does).
#[inline(always)]
fn nearest(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let nearest = if x.is_nan() {
        bits >> 16 | 0x40
    } else if x.is_subnormal() {
        bits >> 16 & 0x8000
    } else {
        rounded
    };
    nearest as u16
}

/// Bits of `high` and `low`, x = high + low up to 2⁻¹⁷ of it.
#[inline(always)]
pub(super) fn parts(x: f32) -> [u16; 2] {
    let high = nearest(x);
    [high, nearest(x - f32::from_bits(u32::from(high) << 16))]
}

/// Pairs of numbers, the first in the low half: their high parts and their low parts.
#[inline(always)]
pub(super) fn pair(first: f32, second: f32) -> [u32; 2] {
    let (first, second) = (parts(first), parts(second));
    [0, 1].map(|part| u32::from(first[part]) | u32::from(second[part]) << 16)
}

/// The machine's conversions.
#[cfg(target_arch = "x86_64")]
pub(super) mod native {
    #[allow(clippy::wildcard_imports)] // the names are Intel's own
    use std::arch::x86_64::*;

    /// The numbers of bf16 in the low or high half, as f32.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn widen(numbers: __m256i) -> __m512 {
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(numbers)))
    }

    /// High and low parts of 16 numbers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(crate) fn parts(x: __m512) -> [__m256i; 2] {
        // SAFETY: both types are 32 bytes of numbers.
        let bits = |numbers: __m256bh| unsafe { std::mem::transmute::<__m256bh, __m256i>(numbers) };
        let high = bits(_mm512_cvtneps_pbh(x));
        [high, bits(_mm512_cvtneps_pbh(_mm512_sub_ps(x, widen(high))))]
    }

    /// 32 numbers rounded.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(crate) fn round(first: __m512, second: __m512) -> __m512i {
        // SAFETY: both types are 64 bytes of numbers.
        unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first)) }
    }

    /// High and low parts of 32 numbers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(crate) fn parts_of_32(first: __m512, second: __m512) -> [__m512i; 2] {
        let high = round(first, second);
        let (a, b) = (widen(_mm512_castsi512_si256(high)), widen(_mm512_extracti64x4_epi64::<1>(high)));
        [high, round(_mm512_sub_ps(first, a), _mm512_sub_ps(second, b))]
    }

    /// High and low parts of 16 pairs of numbers, the first of a pair in the low half of its lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(crate) fn pairs(first: __m512, second: __m512) -> [__m512i; 2] {
        let order = _mm512_set_epi16(
            31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17,
            1, 16, 0,
        );
        parts_of_32(first, second).map(|part| _mm512_permutexvar_epi16(order, part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_as_exact_as_two_numbers_of_bf16_can_be() {
        let widen = |bits: u16| f32::from_bits(u32::from(bits) << 16);
        let mut worst = 0.0f64;
        for x in crate::testing::values::<f32>(5, 100_000) {
            let [high, low] = parts(x);
            let sum = f64::from(widen(high)) + f64::from(widen(low));
            worst = worst.max(((sum - f64::from(x)) / f64::from(x)).abs());
        }
        assert!(worst > 0.0 && worst <= 2f64.powi(-17), "worst relative error {worst:e}");
        assert!(widen(parts(f32::NAN)[0]).is_nan());
        assert!(widen(parts(f32::from_bits(0x7fff_ffff))[0]).is_nan());
        assert_eq!(parts(f32::INFINITY)[0], 0x7f80);
        assert_eq!(parts(1.0), [0x3f80, 0]);
        assert_eq!(pair(1.0, -2.0), [0xc000_3f80, 0]);
    }
}
