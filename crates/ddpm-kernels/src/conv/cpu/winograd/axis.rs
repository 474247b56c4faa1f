//! The transforms of F(4x4, 3x3) along one axis, and from them along both:
//! `y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A` (Lavin and Gray 2016, eq. 12), and the adjoints of Aᵀ and G for the gradient of the weights.
//!
//! The points of interpolation are 0, ±5/8, ±3/2 and ∞: their squares are exact, and the error is half of that with the usual
//! ±1 and ±2, whose powers lie further apart.

#![allow(clippy::needless_range_loop)] // indices are the matrices'

use super::transform::{SIDE, TILE};
use super::vector::Vector;

const A: f64 = 0.625;
const B: f64 = 1.5;
/// Scales of the rows of G: one over the product of a point's differences from the others.
const AT_ZERO: f64 = 1.0 / (A * A * B * B);
const AT_A: f64 = 1.0 / (2.0 * A * A * (A * A - B * B));
const AT_B: f64 = 1.0 / (2.0 * B * B * (B * B - A * A));

/// The rows of Bᵀd for ±5/8 and ±3/2.
#[inline(always)]
fn input_middle<V: Vector>(d: [V; SIDE]) -> [V; 4] {
    let (minus_a2, minus_b2) = (V::all(-A * A), V::all(-B * B));
    let (even_a, odd_a) = (d[2].fma(minus_b2, d[4]), d[1].fma(minus_b2, d[3]).mul(V::all(A)));
    let (even_b, odd_b) = (d[2].fma(minus_a2, d[4]), d[1].fma(minus_a2, d[3]).mul(V::all(B)));
    [even_a.add(odd_a), even_a.sub(odd_a), even_b.add(odd_b), even_b.sub(odd_b)]
}

/// The rows of Bᵀd for 0 and ∞.
#[inline(always)]
fn input_ends<V: Vector>(d: [V; SIDE]) -> [V; 2] {
    let (product, minus_sum) = (V::all(A * A * B * B), V::all(-A * A - B * B));
    [d[0].fma(product, d[2].fma(minus_sum, d[4])), d[1].fma(product, d[3].fma(minus_sum, d[5]))]
}

/// Bᵀd.
#[inline(always)]
fn input_axis<V: Vector>(d: [V; SIDE]) -> [V; SIDE] {
    let ([zero, infinity], [a, minus_a, b, minus_b]) = (input_ends(d), input_middle(d));
    [zero, a, minus_a, b, minus_b, infinity]
}

/// Aᵀm.
#[inline(always)]
fn output_axis<V: Vector>(m: [V; SIDE]) -> [V; TILE] {
    let (even_a, odd_a) = (m[1].add(m[2]), m[1].sub(m[2]));
    let (even_b, odd_b) = (m[3].add(m[4]), m[3].sub(m[4]));
    [
        m[0].add(even_a.add(even_b)),
        odd_b.fma(V::all(B), odd_a.mul(V::all(A))),
        even_b.fma(V::all(B * B), even_a.mul(V::all(A * A))),
        odd_b.fma(V::all(B * B * B), odd_a.fma(V::all(A * A * A), m[5])),
    ]
}

/// Gg.
#[inline(always)]
fn weight_axis<V: Vector>(g: [V; 3]) -> [V; SIDE] {
    let even_a = g[2].fma(V::all(AT_A * A * A), g[0].mul(V::all(AT_A)));
    let even_b = g[2].fma(V::all(AT_B * B * B), g[0].mul(V::all(AT_B)));
    [
        g[0].mul(V::all(AT_ZERO)),
        g[1].fma(V::all(AT_A * A), even_a),
        g[1].fma(V::all(-AT_A * A), even_a),
        g[1].fma(V::all(AT_B * B), even_b),
        g[1].fma(V::all(-AT_B * B), even_b),
        g[2],
    ]
}

/// Ay, the adjoint of [`output_axis`].
#[inline(always)]
fn output_adjoint_axis<V: Vector>(y: [V; TILE]) -> [V; SIDE] {
    let (even_a, odd_a) = (y[2].fma(V::all(A * A), y[0]), y[3].fma(V::all(A * A * A), y[1].mul(V::all(A))));
    let (even_b, odd_b) = (y[2].fma(V::all(B * B), y[0]), y[3].fma(V::all(B * B * B), y[1].mul(V::all(B))));
    [y[0], even_a.add(odd_a), even_a.sub(odd_a), even_b.add(odd_b), even_b.sub(odd_b), y[3]]
}

/// Gᵀu, the adjoint of [`weight_axis`].
#[inline(always)]
fn weight_adjoint_axis<V: Vector>(u: [V; SIDE]) -> [V; 3] {
    let (even_a, odd_a) = (u[1].add(u[2]), u[1].sub(u[2]));
    let (even_b, odd_b) = (u[3].add(u[4]), u[3].sub(u[4]));
    [
        even_b.fma(V::all(AT_B), even_a.fma(V::all(AT_A), u[0].mul(V::all(AT_ZERO)))),
        odd_b.fma(V::all(AT_B * B), odd_a.mul(V::all(AT_A * A))),
        even_b.fma(V::all(AT_B * B * B), even_a.fma(V::all(AT_A * A * A), u[5])),
    ]
}

/// Where a transform takes its vectors from, and where it puts them. (Not closures: those would not become part of a function that
/// is compiled for an instruction set.)
pub(super) trait Port<V> {
    /// The vector of row i and column j of what is transformed.
    fn load(&self, i: usize, j: usize) -> V;
    /// The same of what becomes of it.
    fn store(&mut self, i: usize, j: usize, vector: V);
}

/// A transform of vectors of channels along both axes.
pub(super) trait Transform {
    /// Side of what is transformed.
    const FROM: usize;
    /// Side of what becomes of it.
    const TO: usize;

    /// Loads each vector once or twice, and stores each result once.
    fn both<V: Vector>(port: &mut impl Port<V>);
}

/// V = Bᵀ d B.
pub(super) struct Input;

impl Input {
    /// Some rows of the result from their columns.
    #[inline(always)]
    fn rows<V: Vector, const M: usize>(columns: [[V; M]; SIDE], rows: [usize; M], port: &mut impl Port<V>) {
        for k in 0..M {
            let mut row = [V::all(0.0); SIDE];
            for j in 0..SIDE {
                row[j] = columns[j][k];
            }
            let row = input_axis(row);
            for j in 0..SIDE {
                port.store(rows[k], j, row[j]);
            }
        }
    }
}

impl Transform for Input {
    const FROM: usize = SIDE;
    const TO: usize = SIDE;

    /// Six by six vectors are more than there are registers: two rows of the result, then the other four.
    #[inline(always)]
    fn both<V: Vector>(port: &mut impl Port<V>) {
        let mut ends = [[V::all(0.0); 2]; SIDE];
        for j in 0..SIDE {
            ends[j] = input_ends(column(port, j));
        }
        Self::rows(ends, [0, 5], port);
        let mut middle = [[V::all(0.0); 4]; SIDE];
        for j in 0..SIDE {
            middle[j] = input_middle(column(port, j));
        }
        Self::rows(middle, [1, 2, 3, 4], port);
    }
}

#[inline(always)]
fn column<V: Vector, const N: usize>(port: &impl Port<V>, j: usize) -> [V; N] {
    let mut column = [V::all(0.0); N];
    for i in 0..N {
        column[i] = port.load(i, j);
    }
    column
}

macro_rules! transforms {
    ($($(#[$meta:meta])* $name:ident $axis:ident $from:ident $to:ident;)*) => {$(
        $(#[$meta])*
        pub(super) struct $name;

        impl Transform for $name {
            const FROM: usize = $from;
            const TO: usize = $to;

            /// Columns first, all of whose results wait in registers: at most 24.
            #[inline(always)]
            fn both<V: Vector>(port: &mut impl Port<V>) {
                let mut columns = [[V::all(0.0); $to]; $from];
                for j in 0..$from {
                    columns[j] = $axis(column(port, j));
                }
                for i in 0..$to {
                    let mut row = [V::all(0.0); $from];
                    for j in 0..$from {
                        row[j] = columns[j][i];
                    }
                    let row = $axis(row);
                    for j in 0..$to {
                        port.store(i, j, row[j]);
                    }
                }
            }
        }
    )*};
}

/// Side of the weights.
const TAPS: usize = 3;

transforms! {
    /// Y = Aᵀ M A.
    Output output_axis SIDE TILE;
    /// U = G g Gᵀ.
    Weight weight_axis TAPS SIDE;
    /// dM = A dy Aᵀ.
    OutputAdjoint output_adjoint_axis TILE SIDE;
    /// dw = Gᵀ dU G.
    WeightAdjoint weight_adjoint_axis SIDE TAPS;
}

#[cfg(test)]
mod tests {
    use super::super::vector::Plain;
    use super::*;

    type Number = Plain<f64>;

    fn number(value: f64) -> Number {
        Number::all(value)
    }

    fn value(vector: Number) -> f64 {
        let mut lanes = [0.0; Number::LANES];
        // SAFETY: the array has as many lanes.
        unsafe { vector.store(lanes.as_mut_ptr()) };
        lanes[0]
    }

    /// Bᵀ, Aᵀ and G are those of a convolution: a random tile against its definition, exact up to rounding in f64.
    #[test]
    fn transforms_multiply_to_a_convolution() {
        let random = |seed: usize| ((seed * 7919 + 13) % 101) as f64 / 50.0 - 1.0;
        let d: [f64; 6] = std::array::from_fn(random);
        let g: [f64; 3] = std::array::from_fn(|i| random(i + 40));
        let (v, u) = (input_axis(d.map(number)), weight_axis(g.map(number)));
        let y = output_axis(std::array::from_fn(|p| v[p].mul(u[p])));
        for (i, y) in y.into_iter().map(value).enumerate() {
            let expected: f64 = (0..3).map(|tap| d[i + tap] * g[tap]).sum();
            assert!((y - expected).abs() < 1e-13, "{i}: {y}, expected {expected}");
        }
    }

    #[test]
    fn adjoints_are_adjoint() {
        let random = |seed: usize| number(((seed * 104_729 + 5) % 103) as f64 / 51.0 - 1.0);
        let dot = |a: &[Number], b: &[Number]| a.iter().zip(b).map(|(a, b)| value(a.mul(*b))).sum::<f64>();
        let (m, y): ([Number; 6], [Number; 4]) = (std::array::from_fn(random), std::array::from_fn(|i| random(i + 9)));
        assert!((dot(&output_axis(m), &y) - dot(&m, &output_adjoint_axis(y))).abs() < 1e-13);
        let g: [Number; 3] = std::array::from_fn(|i| random(i + 20));
        assert!((dot(&weight_axis(g), &m) - dot(&g, &weight_adjoint_axis(m))).abs() < 1e-13);
    }
}
