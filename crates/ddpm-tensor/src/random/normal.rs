//! Standard normals with the same bits on every machine.
//!
//! Box and Muller's transform, `r = √(−2 ln u)`, `z = (r cos θ, r sin θ)`, with `ln`, `sin` and `cos`
//! as polynomials of our own: a library's would differ between machines in the last bit. Only integer
//! operations, `+`, `*`, fused multiply-add and `sqrt` occur, which IEEE 754 rounds in one way.
//! The CUDA twin is `kernels/philox.cuh`: change both or neither.

#![allow(clippy::excessive_precision)] // the coefficients as `kernels/philox.cuh` and C's `%.9e` write them

/// `(ln(1 + f) − f) / f²` for f in [−1/3, 1/3), lowest power first; ln itself errs by 6.4e-10, relative.
const LN: [f32; 10] = [
    -5.000000000e-01,
    3.333333731e-01,
    -2.499964833e-01,
    1.999941766e-01,
    -1.668430567e-01,
    1.430887580e-01,
    -1.214466542e-01,
    1.071017683e-01,
    -1.303501576e-01,
    1.216143519e-01,
];
/// `(sin t / t − 1) / t²` in powers of t², for |t| ≤ π/4; relative error 3.8e-9.
const SIN: [f32; 3] = [-1.666665524e-01, 8.332160302e-03, -1.951528247e-04];
/// `(cos t − 1) / t²` in powers of t², for |t| ≤ π/4; relative error 1.2e-10.
const COS: [f32; 4] = [-0.5, 4.166664556e-02, -1.388731645e-03, 2.443315680e-05];

/// `Σ c[i] x^i` by Horner's rule.
#[inline(always)]
fn polynomial<const N: usize>(c: &[f32; N], x: f32) -> f32 {
    let mut sum = c[N - 1];
    for i in (0..N - 1).rev() {
        sum = sum.mul_add(x, c[i]);
    }
    sum
}

/// `ln u` for a normal float u in (0, 1].
#[inline(always)]
fn ln(u: f32) -> f32 {
    /// The bits of 2/3: u = 2^e m with m in [2/3, 4/3).
    const TWO_THIRDS: i32 = 0x3f2a_aaab;
    let bits = u.to_bits() as i32;
    let e = (bits - TWO_THIRDS) >> 23;
    let f = f32::from_bits((bits - (e << 23)) as u32) - 1.0;
    let ln_m = polynomial(&LN, f).mul_add(f * f, f);
    (e as f32).mul_add(std::f32::consts::LN_2, ln_m)
}

/// `(cos θ, sin θ)` for θ = 2π · turn / 2^32.
#[inline(always)]
fn cos_sin(turn: u32) -> (f32, f32) {
    /// 2π / 2^32.
    const UNIT: f32 = 1.4629180792671596e-9;
    // The nearest quarter turn, and what is left of the angle: t in [−π/4, π/4).
    let quarter = turn.wrapping_add(1 << 29) >> 30;
    let t = turn.wrapping_sub(quarter << 30) as i32 as f32 * UNIT;
    let t2 = t * t;
    let sin = (polynomial(&SIN, t2) * t2).mul_add(t, t);
    let cos = polynomial(&COS, t2).mul_add(t2, 1.0);
    // Quarters 1 and 3 swap the two; sin changes sign in 2 and 3, cos in 1 and 2.
    let (cos, sin) = if quarter & 1 == 0 { (cos, sin) } else { (sin, cos) };
    let cos = if quarter.wrapping_add(1) & 2 == 0 { cos } else { -cos };
    let sin = if quarter & 2 == 0 { sin } else { -sin };
    (cos, sin)
}

/// Two independent standard normals from 64 random bits; |z| is at most 6.77.
#[inline(always)]
fn box_muller(radius_bits: u32, turn: u32) -> (f32, f32) {
    /// 2^-32, and half of it so that u is never zero.
    const STEP: f32 = 2.3283064365386963e-10;
    const HALF_STEP: f32 = 1.1641532182693481e-10;
    let u = (radius_bits as f32).mul_add(STEP, HALF_STEP);
    let r = (-2.0 * ln(u)).sqrt();
    let (cos, sin) = cos_sin(turn);
    (r * cos, r * sin)
}

/// Four independent standard normals from the 128 bits of a Philox block.
#[inline(always)]
pub fn normals_from_bits(bits: [u32; 4]) -> [f32; 4] {
    let (z0, z1) = box_muller(bits[0], bits[1]);
    let (z2, z3) = box_muller(bits[2], bits[3]);
    [z0, z1, z2, z3]
}

#[cfg(test)]
mod tests {
    use super::{box_muller, cos_sin, ln};

    /// Bits that hit the ends of every case, and a sweep in between.
    fn probes() -> impl Iterator<Item = u32> {
        let ends = (0..32).flat_map(|k| {
            let p = 1u32 << k;
            [p.wrapping_sub(1), p, p.wrapping_add(1), p.wrapping_neg()]
        });
        let sweep = (0..200_000u32).map(|i| i.wrapping_mul(0x9E37_79B9));
        ends.chain(sweep)
    }

    #[test]
    fn ln_is_within_an_ulp_or_two() {
        for bits in probes() {
            let u = ((f64::from(bits) + 0.5) / 4294967296.0) as f32;
            let exact = f64::from(u).ln();
            let error = (f64::from(ln(u)) - exact).abs();
            assert!(error <= 2e-7 * exact.abs(), "ln({u}): error {error:e}");
        }
    }

    #[test]
    fn cos_and_sin_are_within_an_ulp_of_one() {
        for turn in probes() {
            let angle = std::f64::consts::TAU * f64::from(turn) / 4294967296.0;
            let (cos, sin) = cos_sin(turn);
            let error = (f64::from(cos) - angle.cos()).abs().max((f64::from(sin) - angle.sin()).abs());
            assert!(error < 1.2e-7, "turn {turn:#x}: error {error:e}");
        }
    }

    #[test]
    fn the_ends_are_finite() {
        assert_eq!(box_muller(u32::MAX, 0).0, 0.0);
        let (z, _) = box_muller(0, 0);
        assert!((6.76..6.77).contains(&z), "largest normal {z}");
        for bits in probes() {
            let (a, b) = box_muller(bits, bits.rotate_left(7));
            assert!(a.is_finite() && b.is_finite(), "{bits:#x} gave {a}, {b}");
        }
    }
}
