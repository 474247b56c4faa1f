//! Numbers that Python makes alike: `tests/fixtures/eval/formula.py`.

/// `count` numbers in [0, 1) at the name's seed.
pub(crate) fn uniform(name: &str, count: usize) -> Vec<f64> {
    let seed = name.bytes().fold(0x811C_9DC5_u32, |h, byte| (h ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let hash = |i: usize| {
        let mut h = (i as u32).wrapping_mul(0x9E37_79B9).wrapping_add(seed);
        h ^= h >> 16;
        h = h.wrapping_mul(0x7FEB_352D);
        h ^= h >> 15;
        h = h.wrapping_mul(0x846C_A68B);
        h ^ h >> 16
    };
    (0..count).map(|i| f64::from(hash(i)) / 2_f64.powi(32)).collect()
}
