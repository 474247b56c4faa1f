//! Elementary functions in `f32` that give the same bits on every machine and that a compiler can vectorise:
//! only `fma`, `+`, `*` and integer operations.

/// 1.5 · 2^23: adding it rounds to the nearest integer and leaves that integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// e^x with a relative error below 2e-7, saturating at e^−87 and e^88.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2; e^r is its series up to r^7 (the next term is below 6e-9).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // ln 2 in two parts: n times the first is exact
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // not `clamp`: a NaN must stay one
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    let mut p = 1.0 / 5040.0;
    p = r.mul_add(p, 1.0 / 720.0);
    p = r.mul_add(p, 1.0 / 120.0);
    p = r.mul_add(p, 1.0 / 24.0);
    p = r.mul_add(p, 1.0 / 6.0);
    p = r.mul_add(p, 0.5);
    p = r.mul_add(p, 1.0);
    p = r.mul_add(p, 1.0);
    // the low bits of `shifted` are n; n is in −126..=127
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    p * power
}

/// 1 / (1 + e^−x) with a relative error below 4e-7, for x from −87 on (below, its value there): without a division, which takes as
/// long as all the rest.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    // not `max`: a NaN must stay one
    let x = if x < -87.0 { -87.0 } else { x };
    let d = 1.0 + exp(-x);
    // 1/d within an eighth from the bits of d, then three steps of Newton's method, each of which squares the error
    let mut y = f32::from_bits(0x7ef3_11c7u32.wrapping_sub(d.to_bits()));
    for _ in 0..3 {
        let error = d.mul_add(-y, 1.0);
        y = y.mul_add(error, y);
    }
    y
}

#[cfg(test)]
mod tests {
    #[test]
    fn sigmoid_is_within_a_few_ulp_of_the_real_one() {
        let (mut worst, mut at) = (0.0, 0.0);
        for i in -87_000..120_000 {
            let x = i as f32 / 1000.0;
            let real = 1.0 / (1.0 + (-x as f64).exp());
            let error = ((super::sigmoid(x) as f64 - real) / real).abs();
            if error > worst {
                (worst, at) = (error, x);
            }
        }
        assert!(worst < 4e-7, "relative error {worst:e} at {at}");
        assert!(super::sigmoid(f32::NAN).is_nan());
        assert!(super::sigmoid(-1e30) < 2e-38 && super::sigmoid(1e30) == 1.0);
    }

    #[test]
    fn exp_is_within_two_ulp_of_the_real_one() {
        let (mut worst, mut at) = (0.0, 0.0);
        for i in -87_000..88_000 {
            let x = i as f32 / 1000.0;
            let real = (x as f64).exp();
            let error = ((super::exp(x) as f64 - real) / real).abs();
            if error > worst {
                (worst, at) = (error, x);
            }
        }
        assert!(worst < 2e-7, "relative error {worst:e} at {at}");
        assert!(super::exp(f32::NAN).is_nan());
        assert!(super::exp(-1e30) < 1e-37 && super::exp(1e30) > 1e38);
        assert_eq!(super::exp(0.0), 1.0);
    }
}
