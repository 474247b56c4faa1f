//! The transforms of F(4x4, 3x3), over channels: `y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A` (Lavin and Gray 2016, eq. 12), and the adjoints
//! of Aᵀ and G for the gradient of the weights.
//!
//! The points of interpolation are 0, ±5/8, ±3/2 and ∞: their squares are exact, and the error is half of that with the usual
//! ±1 and ±2, whose powers lie further apart.

use ddpm_tensor::{Element, simd};

/// Side of a tile of the result.
pub(super) const TILE: usize = 4;
/// Side of a tile of the operand.
pub(super) const SIDE: usize = 6;
/// Products of a tile.
pub(super) const POINTS: usize = SIDE * SIDE;
/// Channels that are transformed together.
const LANES: usize = 16;

const A: f64 = 0.625;
const B: f64 = 1.5;
/// Scales of the rows of G: one over the product of a point's differences from the others.
const AT_ZERO: f64 = 1.0 / (A * A * B * B);
const AT_A: f64 = 1.0 / (2.0 * A * A * (A * A - B * B));
const AT_B: f64 = 1.0 / (2.0 * B * B * (B * B - A * A));

/// Bᵀd.
#[inline(always)]
fn input_axis<T: Element>(d: [T; SIDE]) -> [T; SIDE] {
    let (a, b) = (T::of(A), T::of(B));
    let (minus_a2, minus_b2) = (T::of(-A * A), T::of(-B * B));
    let (product, minus_sum) = (T::of(A * A * B * B), T::of(-A * A - B * B));
    let (even_a, odd_a) = (d[2].fma(minus_b2, d[4]), d[1].fma(minus_b2, d[3]) * a);
    let (even_b, odd_b) = (d[2].fma(minus_a2, d[4]), d[1].fma(minus_a2, d[3]) * b);
    [
        d[0].fma(product, d[2].fma(minus_sum, d[4])),
        even_a + odd_a,
        even_a - odd_a,
        even_b + odd_b,
        even_b - odd_b,
        d[1].fma(product, d[3].fma(minus_sum, d[5])),
    ]
}

/// Aᵀm.
#[inline(always)]
fn output_axis<T: Element>(m: [T; SIDE]) -> [T; TILE] {
    let (even_a, odd_a) = (m[1] + m[2], m[1] - m[2]);
    let (even_b, odd_b) = (m[3] + m[4], m[3] - m[4]);
    [
        m[0] + (even_a + even_b),
        odd_b.fma(T::of(B), odd_a * T::of(A)),
        even_b.fma(T::of(B * B), even_a * T::of(A * A)),
        odd_b.fma(T::of(B * B * B), odd_a.fma(T::of(A * A * A), m[5])),
    ]
}

/// Gg.
#[inline(always)]
fn weight_axis<T: Element>(g: [T; 3]) -> [T; SIDE] {
    let even_a = g[2].fma(T::of(AT_A * A * A), g[0] * T::of(AT_A));
    let even_b = g[2].fma(T::of(AT_B * B * B), g[0] * T::of(AT_B));
    [
        g[0] * T::of(AT_ZERO),
        g[1].fma(T::of(AT_A * A), even_a),
        g[1].fma(T::of(-AT_A * A), even_a),
        g[1].fma(T::of(AT_B * B), even_b),
        g[1].fma(T::of(-AT_B * B), even_b),
        g[2],
    ]
}

/// Ay, the adjoint of [`output_axis`].
#[inline(always)]
fn output_adjoint_axis<T: Element>(y: [T; TILE]) -> [T; SIDE] {
    let (even_a, odd_a) = (y[2].fma(T::of(A * A), y[0]), y[3].fma(T::of(A * A * A), y[1] * T::of(A)));
    let (even_b, odd_b) = (y[2].fma(T::of(B * B), y[0]), y[3].fma(T::of(B * B * B), y[1] * T::of(B)));
    [y[0], even_a + odd_a, even_a - odd_a, even_b + odd_b, even_b - odd_b, y[3]]
}

/// Gᵀu, the adjoint of [`weight_axis`].
#[inline(always)]
fn weight_adjoint_axis<T: Element>(u: [T; SIDE]) -> [T; 3] {
    let (even_a, odd_a) = (u[1] + u[2], u[1] - u[2]);
    let (even_b, odd_b) = (u[3] + u[4], u[3] - u[4]);
    [
        even_b.fma(T::of(AT_B), even_a.fma(T::of(AT_A), u[0] * T::of(AT_ZERO))),
        odd_b.fma(T::of(AT_B * B), odd_a * T::of(AT_A * A)),
        even_b.fma(T::of(AT_B * B * B), even_a.fma(T::of(AT_A * A * A), u[5])),
    ]
}

/// M by M vectors of channels.
type Vectors<T, const M: usize> = [[[T; LANES]; M]; M];

/// One transform along both axes, for [`LANES`] channels.
#[inline(always)]
fn lanes<T: Element, const N: usize, const M: usize>(
    axis: impl Fn([T; N]) -> [T; M] + Copy,
    from: [[&[T; LANES]; N]; N],
    to: &mut Vectors<T, M>,
) {
    for lane in 0..LANES {
        let mut half = [[T::ZERO; N]; M];
        for j in 0..N {
            let mut column = [T::ZERO; N];
            for i in 0..N {
                column[i] = from[i][j][lane];
            }
            let column = axis(column);
            for i in 0..M {
                half[i][j] = column[i];
            }
        }
        for i in 0..M {
            let row = axis(half[i]);
            for j in 0..M {
                to[i][j][lane] = row[j];
            }
        }
    }
}

#[inline(always)]
fn zeros<T: Element, const M: usize>() -> Vectors<T, M> {
    [[[T::ZERO; LANES]; M]; M]
}

/// One transform of `count` channels along both axes: element (i, j) is read at `from[at(i, j)..]`, `store(i, j, channel,
/// values)` takes results, by way of `to`.
#[inline(always)]
fn channels<T: Element, const N: usize, const M: usize>(
    axis: impl Fn([T; N]) -> [T; M] + Copy,
    count: usize,
    from: &[T],
    to: &mut Vectors<T, M>,
    at: impl Fn(usize, usize) -> usize,
    mut store: impl FnMut(usize, usize, usize, &[T]),
) {
    let whole = count / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        let none = &[T::ZERO; LANES];
        let mut vectors = [[none; N]; N];
        for (i, row) in vectors.iter_mut().enumerate() {
            for (j, vector) in row.iter_mut().enumerate() {
                *vector = from[at(i, j) + first..].first_chunk().unwrap_or(none);
            }
        }
        lanes(axis, vectors, to);
        for (i, row) in to.iter().enumerate() {
            for (j, values) in row.iter().enumerate() {
                store(i, j, first, values);
            }
        }
    }
    if whole < count {
        let rest = count - whole;
        let mut vectors: Vectors<T, N> = zeros();
        for (i, row) in vectors.iter_mut().enumerate() {
            for (j, vector) in row.iter_mut().enumerate() {
                vector[..rest].copy_from_slice(&from[at(i, j) + whole..][..rest]);
            }
        }
        lanes(axis, vectors.each_ref().map(|row| row.each_ref()), to);
        for (i, row) in to.iter().enumerate() {
            for (j, values) in row.iter().enumerate() {
                store(i, j, whole, &values[..rest]);
            }
        }
    }
}

simd! {
    /// V = Bᵀ d B of a row of tiles: `strip` is six padded rows of `columns` pixels of `c` channels, tile t begins at column 4·t;
    /// point p of tile t goes to `v[p·plane + t·c..]`.
    pub(super) fn input[T: Element](isa, strip: &[T], columns: usize, c: usize, tiles: usize, v: &mut [T], plane: usize) {
        let mut to = zeros();
        for tile in 0..tiles {
            let at = |i: usize, j: usize| (i * columns + tile * TILE + j) * c;
            channels(input_axis, c, strip, &mut to, at, |i, j, channel, values| {
                v[(i * SIDE + j) * plane + tile * c + channel..][..values.len()].copy_from_slice(values);
            });
        }
    }
}

simd! {
    /// Y = Aᵀ M A of a row of tiles, without what hangs over the edge: `count` channels of `m[p·plane + t·width..]` to
    /// `y[pixel·o..]`, the pixels being `valid` = rows (at most four) and columns.
    pub(super) fn output[T: Element](isa, m: &[T], plane: usize, width: usize, count: usize, valid: (usize, usize), y: &mut [T], o: usize) {
        let (rows, columns) = valid;
        let mut to = zeros();
        for tile in 0..columns.div_ceil(TILE) {
            let at = |i: usize, j: usize| (i * SIDE + j) * plane + tile * width;
            channels(output_axis, count, m, &mut to, at, |i, j, channel, values| {
                if i < rows && tile * TILE + j < columns {
                    y[(i * columns + tile * TILE + j) * o + channel..][..values.len()].copy_from_slice(values);
                }
            });
        }
    }
}

simd! {
    /// U = G g Gᵀ of `size`: `depth` rows of `columns` weights: tap τ of row k is `g[τ·tap + k·row..]` (strides: tap, row), a
    /// column each (if `turned` the last tap first); point p goes to `u[p·plane + k·width..]`, with zeros up to `width`.
    pub(super) fn weights[T: Element](isa, g: &[T], strides: (usize, usize), turned: bool, size: (usize, usize), u: &mut [T], plane: usize, width: usize) {
        let ((tap, row), (depth, columns)) = (strides, size);
        let mut to = zeros();
        for k in 0..depth {
            let at = |i: usize, j: usize| (if turned { 8 - (3 * i + j) } else { 3 * i + j }) * tap + k * row;
            channels(weight_axis, columns, g, &mut to, at, |i, j, column, values| {
                u[(i * SIDE + j) * plane + k * width + column..][..values.len()].copy_from_slice(values);
            });
            if columns < width {
                for p in 0..POINTS {
                    u[p * plane + k * width + columns..p * plane + (k + 1) * width].fill(T::ZERO);
                }
            }
        }
    }
}

simd! {
    /// dM = A dy Aᵀ of a row of tiles: `strip` is four rows of `columns` pixels of `o` channels; the channels from `first` on go, a
    /// panel of `width`, to `dm[p·plane + t·width..]`, with zeros where there are no more.
    pub(super) fn output_adjoint[T: Element](isa, strip: &[T], columns: usize, o: usize, first: usize, dm: &mut [T], plane: usize, width: usize) {
        let count = width.min(o - first);
        let mut to = zeros();
        for tile in 0..columns / TILE {
            let at = |i: usize, j: usize| (i * columns + tile * TILE + j) * o + first;
            channels(output_adjoint_axis, count, strip, &mut to, at, |i, j, channel, values| {
                dm[(i * SIDE + j) * plane + tile * width + channel..][..values.len()].copy_from_slice(values);
            });
            if count < width {
                for p in 0..POINTS {
                    dm[p * plane + tile * width + count..p * plane + (tile + 1) * width].fill(T::ZERO);
                }
            }
        }
    }
}

simd! {
    /// Adds dw = Gᵀ dU G of one input channel: `du[p·plane..]` to `add(tap, channel, values)`.
    pub(super) fn weight_adjoint[T: Element](isa, du: &[T], plane: usize, o: usize, dw: &mut [T]) {
        channels(weight_adjoint_axis, o, du, &mut zeros(), |i, j| (i * SIDE + j) * plane, |i, j, channel, values| {
            dw[(3 * i + j) * o + channel..][..values.len()].copy_from_slice(values);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bᵀ, Aᵀ and G are those of a convolution: a random tile against its definition, exact up to rounding in f64.
    #[test]
    fn transforms_multiply_to_a_convolution() {
        let value = |seed: usize| ((seed * 7919 + 13) % 101) as f64 / 50.0 - 1.0;
        let d: [f64; 6] = std::array::from_fn(value);
        let g: [f64; 3] = std::array::from_fn(|i| value(i + 40));
        let (v, u) = (input_axis(d), weight_axis(g));
        let y = output_axis(std::array::from_fn(|p| v[p] * u[p]));
        for (i, y) in y.into_iter().enumerate() {
            let expected: f64 = (0..3).map(|tap| d[i + tap] * g[tap]).sum();
            assert!((y - expected).abs() < 1e-13, "{i}: {y}, expected {expected}");
        }
    }

    #[test]
    fn adjoints_are_adjoint() {
        let value = |seed: usize| ((seed * 104_729 + 5) % 103) as f64 / 51.0 - 1.0;
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let (m, y): ([f64; 6], [f64; 4]) = (std::array::from_fn(value), std::array::from_fn(|i| value(i + 9)));
        assert!((dot(&output_axis(m), &y) - dot(&m, &output_adjoint_axis(y))).abs() < 1e-13);
        let g: [f64; 3] = std::array::from_fn(|i| value(i + 20));
        assert!((dot(&weight_axis(g), &m) - dot(&g, &weight_adjoint_axis(m))).abs() < 1e-13);
    }
}
