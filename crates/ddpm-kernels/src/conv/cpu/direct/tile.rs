//! The innermost product: a tile of a few rows by one or two vectors of columns, kept in registers.
//!
//! Every element of a result is one chain of fused multiply-adds over k in order (cut into chunks by the caller), so the bits
//! depend neither on the tile's size nor on the instruction set.

use ddpm_tensor::cpu::isa::Set;
use ddpm_tensor::{Element, Isa};

use super::pack::Panel;

/// A run of k: `len` steps from `a` on in the left operand and from row `b` on in the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) a: usize,
    pub(crate) b: usize,
    pub(crate) len: usize,
}

/// Longest chain of sums: the part of a panel that it reads (40 KB) stays in the first-level cache.
/// Far below the 1024 that `strict` promises.
pub(crate) const CHAIN: usize = 320;

/// Cuts segments into chunks of nearly equal length and at most [`CHAIN`] steps, whose sums are added in order.
pub(crate) fn chunks(segments: &[Segment]) -> Vec<Vec<Segment>> {
    let total: usize = segments.iter().map(|s| s.len).sum();
    let count = total.div_ceil(CHAIN).max(1);
    let mut chunks = vec![Vec::new(); count];
    let mut done = 0;
    for &segment in segments {
        let mut rest = segment;
        while rest.len > 0 {
            // the chunk that step `done` belongs to, and where it ends
            let chunk = (done * count + count - 1) / total.max(1);
            let chunk = if total * chunk / count > done { chunk - 1 } else { chunk };
            let len = rest.len.min(total * (chunk + 1) / count - done);
            chunks[chunk].push(Segment { len, ..rest });
            done += len;
            rest = Segment { a: rest.a + len, b: rest.b + len, len: rest.len - len };
        }
    }
    chunks
}

/// One panel's part of a product: `out[line][row][j] = Σ_k a[lines[line] + row·a_row + k] · panel[k][j]`, `rows` rows a line.
pub(crate) fn product<T: Element>(
    micro: Micro,
    (a, a_row): (&[T], usize),
    lines: &(impl Iterator<Item = usize> + Clone),
    rows: usize,
    chunks: &[Vec<Segment>],
    panel: Panel<'_, T>,
    out: &mut [T],
) {
    for (i, chunk) in chunks.iter().enumerate() {
        for (line, first) in lines.clone().enumerate() {
            for (at, height) in micro.heights(rows) {
                let out = &mut out[(line * rows + at) * panel.width..];
                run(micro, (&a[first + at * a_row..], a_row), height, chunk, panel, i > 0, out);
            }
        }
    }
}

/// One chunk's part of a tile: `out[row][j] (+)= Σ_k a[row·a_row + k] · panel[k][j]`.
pub(crate) fn run<T: Element>(
    micro: Micro,
    (a, a_row): (&[T], usize),
    rows: usize,
    chunk: &[Segment],
    panel: Panel<'_, T>,
    add: bool,
    out: &mut [T],
) {
    let reach = chunk.iter().map(|s| s.a + s.len).max().unwrap_or(0);
    let depth = chunk.iter().map(|s| s.b + s.len).max().unwrap_or(0);
    assert!(rows <= micro.rows && (rows - 1) * a_row + reach <= a.len());
    assert!(depth * panel.width <= panel.values.len() && rows * panel.width <= out.len());
    let (a, out) = (a.as_ptr(), out.as_mut_ptr());
    let t = Tile { a, a_row, a_k: 1, b: panel.values.as_ptr(), b_row: panel.width, out, out_row: panel.width };
    // SAFETY: all that is read and written lies in the slices, asserted above.
    unsafe { micro.run(rows, panel.vectors, chunk, t, add) };
}

/// Where a tile's operands and its result are: `out[m][j] (+)= Σ_k a[m·a_row + k·a_k] · b[k·b_row + j]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tile<T> {
    pub(crate) a: *const T,
    pub(crate) a_row: usize,
    pub(crate) a_k: usize,
    pub(crate) b: *const T,
    pub(crate) b_row: usize,
    pub(crate) out: *mut T,
    pub(crate) out_row: usize,
}

/// The best tile of an instruction set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Micro {
    set: Set,
    /// Columns of one vector.
    pub(crate) lanes: usize,
    /// Most rows of a tile.
    rows: usize,
}

impl Micro {
    pub(crate) fn new<T: Element>(isa: Isa) -> Self {
        match isa.set() {
            Set::Avx512 | Set::Amx => Self { set: Set::Avx512, lanes: 64 / size_of::<T>(), rows: 12 },
            Set::Avx2 => Self { set: Set::Avx2, lanes: 32 / size_of::<T>(), rows: 6 },
            _ => Self { set: Set::Portable, lanes: 8, rows: 4 },
        }
    }

    /// Cuts `count` rows into tiles of nearly equal height.
    pub(crate) fn heights(self, count: usize) -> impl Iterator<Item = (usize, usize)> {
        let tiles = count.div_ceil(self.rows).max(1);
        (0..tiles).map(move |i| (count * i / tiles, count * (i + 1) / tiles - count * i / tiles)).filter(|t| t.1 > 0)
    }

    /// Computes a tile of `rows` by `vectors · lanes`; adds to what is there if `add`.
    ///
    /// # Safety
    /// All addresses that the segments and strides lead to must be readable, those of the result writable and not shared;
    /// `a_k` or `a_row` is 1; `rows ≤ self.rows`, `vectors` is 1 or 2. `T` is the type that the tile was made for.
    #[inline]
    pub(crate) unsafe fn run<T: Element>(self, rows: usize, vectors: usize, chunk: &[Segment], t: Tile<T>, add: bool) {
        match (self.set, size_of::<T>()) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a set is only taken on machines that have it, and 4 bytes are f32; the rest is the caller's promise.
            (Set::Avx512, 4) => unsafe { x86::avx512::tile(rows, vectors, chunk, t.cast(), add) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Set::Avx2, 4) => unsafe { x86::avx2::tile(rows, vectors, chunk, t.cast(), add) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above; 8 bytes are f64.
            (Set::Avx512, _) => unsafe { x86::avx512_f64::tile(rows, vectors, chunk, t.cast(), add) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Set::Avx2, _) => unsafe { x86::avx2_f64::tile(rows, vectors, chunk, t.cast(), add) },
            // SAFETY: the caller's promise.
            _ => unsafe { portable(rows, vectors, chunk, t, add) },
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl<T: Element> Tile<T> {
    /// The same for the type that T is, by name.
    fn cast<U: Element>(self) -> Tile<U> {
        assert_eq!(size_of::<T>(), size_of::<U>());
        let Self { a, a_row, a_k, b, b_row, out, out_row } = self;
        Tile { a: a.cast(), a_row, a_k, b: b.cast(), b_row, out: out.cast(), out_row }
    }
}

/// Any type on any machine; lanes = 8.
///
/// # Safety
/// As [`Micro::run`].
unsafe fn portable<T: Element>(rows: usize, vectors: usize, chunk: &[Segment], t: Tile<T>, add: bool) {
    for row in 0..rows {
        for vector in 0..vectors {
            let mut sum = [T::ZERO; 8];
            for s in chunk {
                for k in 0..s.len {
                    // SAFETY: the caller's promise.
                    let (a, b) = unsafe {
                        let a = *t.a.add(row * t.a_row + (s.a + k) * t.a_k);
                        (a, t.b.add((s.b + k) * t.b_row + vector * 8).cast::<[T; 8]>().read_unaligned())
                    };
                    for (sum, b) in sum.iter_mut().zip(b) {
                        *sum = a.fma(b, *sum);
                    }
                }
            }
            for (lane, sum) in sum.into_iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe {
                    let out = t.out.add(row * t.out_row + vector * 8 + lane);
                    *out = if add { *out + sum } else { sum };
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    macro_rules! tiles {
        ($name:ident, $element:ident, $features:literal, $vector:ident, $zero:ident, $load:ident, $store:ident, $set:ident, $fma:ident, $add:ident, $lanes:literal, $($rows:literal)*) => {
            pub(in super::super) mod $name {
                use std::arch::x86_64::{$vector, $zero, $load, $store, $set, $fma, $add};
                use super::super::{Segment, Tile};

                /// # Safety
                /// As `Micro::run`, on a machine that has the features.
                #[target_feature(enable = $features)]
                unsafe fn kernel<const M: usize, const V: usize, const ROWS: bool>(chunk: &[Segment], t: Tile<$element>, add: bool) {
                    let mut sum: [[$vector; V]; M] = [[$zero(); V]; M];
                    // one base for three rows: the second and third are reached by an index register
                    let (near, step) = if ROWS { (t.a_row, 1) } else { (1, t.a_k) };
                    for s in chunk {
                        // SAFETY: all addresses are the caller's promise; bases beyond row M are not read.
                        unsafe {
                            let first = t.a.add(s.a * step);
                            let mut base = [first, first.wrapping_add(3 * near), first.wrapping_add(6 * near), first.wrapping_add(9 * near)];
                            let mut b = t.b.add(s.b * t.b_row);
                            for _ in 0..s.len {
                                let mut right = [$zero(); V];
                                for v in 0..V {
                                    right[v] = $load(b.add($lanes * v));
                                }
                                for m in 0..M {
                                    let left = $set(*base[m / 3].add(m % 3 * near));
                                    for v in 0..V {
                                        sum[m][v] = $fma(left, right[v], sum[m][v]);
                                    }
                                }
                                base = base.map(|p| p.wrapping_add(step));
                                b = b.wrapping_add(t.b_row);
                            }
                        }
                    }
                    for m in 0..M {
                        for v in 0..V {
                            // SAFETY: as above.
                            unsafe {
                                let out = t.out.add(m * t.out_row + $lanes * v);
                                $store(out, if add { $add($load(out), sum[m][v]) } else { sum[m][v] });
                            }
                        }
                    }
                }

                /// # Safety
                /// As `Micro::run`, on a machine that has the features.
                #[target_feature(enable = $features)]
                pub(in super::super) unsafe fn tile(rows: usize, vectors: usize, chunk: &[Segment], t: Tile<$element>, add: bool) {
                    // SAFETY: passed on.
                    unsafe {
                        // either k or the rows of the left operand follow each other in memory
                        match (rows, vectors, t.a_k == 1) {
                            $(($rows, 1, true) => kernel::<$rows, 1, true>(chunk, t, add),
                            ($rows, _, true) => kernel::<$rows, 2, true>(chunk, t, add),
                            ($rows, 1, false) => kernel::<$rows, 1, false>(chunk, t, add),
                            ($rows, _, false) => kernel::<$rows, 2, false>(chunk, t, add),)*
                            _ => unreachable!("a tile of {rows} rows"),
                        }
                    }
                }
            }
        };
    }

    tiles!(avx512, f32, "avx512f", __m512, _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_add_ps, 16, 1 2 3 4 5 6 7 8 9 10 11 12);
    tiles!(avx512_f64, f64, "avx512f", __m512d, _mm512_setzero_pd, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_set1_pd, _mm512_fmadd_pd, _mm512_add_pd, 8, 1 2 3 4 5 6 7 8 9 10 11 12);
    tiles!(avx2, f32, "avx2,fma", __m256, _mm256_setzero_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_add_ps, 8, 1 2 3 4 5 6);
    tiles!(avx2_f64, f64, "avx2,fma", __m256d, _mm256_setzero_pd, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_set1_pd, _mm256_fmadd_pd, _mm256_add_pd, 4, 1 2 3 4 5 6);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_hold_every_step_once_in_order() {
        for lens in
            [vec![1], vec![320], vec![321], vec![3, 700, 5], vec![384; 3], vec![1100], vec![9, 9, 9], vec![768; 3]]
        {
            let mut start = 0;
            let segments: Vec<_> = lens
                .iter()
                .map(|&len| {
                    start += len;
                    Segment { a: 7 * (start - len), b: start - len, len }
                })
                .collect();
            let chunks = chunks(&segments);
            let steps = |s: &Segment| (0..s.len).map(|k| (s.a + k, s.b + k)).collect::<Vec<_>>();
            let all: Vec<_> = segments.iter().flat_map(steps).collect();
            assert_eq!(chunks.iter().flatten().flat_map(steps).collect::<Vec<_>>(), all, "{lens:?}");
            let lengths: Vec<usize> = chunks.iter().map(|c| c.iter().map(|s| s.len).sum()).collect();
            assert!(lengths.iter().all(|l| (1..=CHAIN).contains(l)), "{lens:?}: {lengths:?}");
        }
    }
}
