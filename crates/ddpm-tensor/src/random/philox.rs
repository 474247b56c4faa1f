//! Philox4x32-10: 128 random bits from a counter and a key, with no state in between.
//!
//! J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
//! SC 2011. The constants are those of section 4.3 and the known answers those of the authors'
//! Random123 library. The CUDA twin is `kernels/philox.cuh`.

/// Multipliers of the two halves of a round.
const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// What the key grows by after a round: the golden ratio and √3 − 1, as fractions of 2^32 (Weyl sequences).
const KEY_STEP: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
/// The authors recommend ten; seven already pass every statistical test.
const ROUNDS: usize = 10;

/// The 128 bits that belong to `counter` under `key`: a bijection of the counter for every key.
#[inline(always)]
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut c0, mut c1, mut c2, mut c3], [mut k0, mut k1]) = (counter, key);
    for _ in 0..ROUNDS {
        let product_0 = u64::from(MULTIPLIER[0]) * u64::from(c0);
        let product_2 = u64::from(MULTIPLIER[1]) * u64::from(c2);
        c0 = (product_2 >> 32) as u32 ^ c1 ^ k0;
        c1 = product_2 as u32;
        c2 = (product_0 >> 32) as u32 ^ c3 ^ k1;
        c3 = product_0 as u32;
        k0 = k0.wrapping_add(KEY_STEP[0]);
        k1 = k1.wrapping_add(KEY_STEP[1]);
    }
    [c0, c1, c2, c3]
}

#[cfg(test)]
mod tests {
    use super::philox4x32_10;

    /// `philox4x32 10` of Random123's `kat_vectors`: zeros, ones, and the digits of π.
    #[test]
    fn known_answers_of_random123() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32_10([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32_10([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }
}
