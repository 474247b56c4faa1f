//! The transforms of tiles, over channels and rows of tiles.

use std::marker::PhantomData;

use ddpm_tensor::cpu::isa::Set;
use ddpm_tensor::{Element, Isa, simd};

use super::axis::{Input, Output, OutputAdjoint, Port, Transform, Weight, WeightAdjoint};
use super::vector::{Plain, Vector};

/// Side of a tile of the result.
pub(super) const TILE: usize = 4;
/// Side of a tile of the operand.
pub(super) const SIDE: usize = 6;
/// Products of a tile.
pub(super) const POINTS: usize = SIDE * SIDE;

/// Where numbers lie: channel c of row i and column j of tile t at `first + i·row + j·column + t·tile + c`.
#[derive(Clone, Copy)]
struct Places {
    first: usize,
    row: isize,
    column: isize,
    tile: usize,
}

impl Places {
    /// The points' planes.
    fn planes(plane: usize, tile: usize) -> Self {
        Self { first: 0, row: (SIDE * plane).cast_signed(), column: plane.cast_signed(), tile }
    }

    /// Pixels of `c` channels in rows of `columns`.
    fn pixels(columns: usize, c: usize, tile: usize) -> Self {
        Self { first: 0, row: (columns * c).cast_signed(), column: c.cast_signed(), tile }
    }

    /// # Safety
    /// The place must be in memory.
    #[inline(always)]
    unsafe fn at<T>(&self, first: *const T, i: usize, j: usize) -> *const T {
        // SAFETY: the caller's promise.
        unsafe { first.offset(i.cast_signed() * self.row + j.cast_signed() * self.column) }
    }

    /// Panics unless all lie in memory of `len` numbers.
    fn assert_within(self, len: usize, rows: usize, columns: usize, tiles: usize, channels: usize) {
        let (down, across) = (self.row * (rows - 1).cast_signed(), self.column * (columns - 1).cast_signed());
        let lowest = self.first.cast_signed() + down.min(0) + across.min(0);
        let tiles = ((tiles - 1) * self.tile + channels).cast_signed();
        let end = self.first.cast_signed() + down.max(0) + across.max(0) + tiles;
        assert!(lowest >= 0 && end <= len.cast_signed(), "{lowest}..{end} of {len} numbers");
    }
}

/// Transforms of some tiles.
#[derive(Clone, Copy)]
struct Pass<T> {
    from: *const T,
    from_places: Places,
    to: *mut T,
    to_places: Places,
    tiles: usize,
    channels: usize,
    /// Rows and columns that are stored.
    stored: [usize; 2],
}

/// The channels of one vector of a tile, in memory.
struct Whole<T> {
    pass: Pass<T>,
    from: *const T,
    to: *mut T,
}

impl<V: Vector> Port<V> for Whole<V::T> {
    #[inline(always)]
    fn load(&self, i: usize, j: usize) -> V {
        // SAFETY: whoever made this has checked all places.
        unsafe { V::load(self.pass.from_places.at(self.from, i, j)) }
    }

    #[inline(always)]
    fn store(&mut self, i: usize, j: usize, vector: V) {
        if i < self.pass.stored[0] && j < self.pass.stored[1] {
            // SAFETY: as above.
            unsafe { vector.store(self.pass.to_places.at(self.to, i, j).cast_mut()) };
        }
    }
}

/// Fewer channels than a vector has: copies that are as long, on both sides of a transform.
struct Few<T> {
    whole: Whole<T>,
    channels: usize,
    from: [[T; MOST_LANES]; POINTS],
    to: [[T; MOST_LANES]; POINTS],
}

impl<T: Element> Few<T> {
    fn new(whole: Whole<T>, channels: usize, side: usize) -> Self {
        let mut from = [[T::ZERO; MOST_LANES]; POINTS];
        for (i, row) in from.chunks_exact_mut(SIDE).enumerate().take(side) {
            for (j, vector) in row.iter_mut().enumerate().take(side) {
                // SAFETY: whoever made `whole` has checked all places, and a vector has more channels.
                unsafe { whole.pass.from_places.at(whole.from, i, j).copy_to(vector.as_mut_ptr(), channels) };
            }
        }
        Self { whole, channels, from, to: [[T::ZERO; MOST_LANES]; POINTS] }
    }

    fn finish(self) {
        let Whole { pass, to, .. } = self.whole;
        for (i, row) in self.to.chunks_exact(SIDE).enumerate().take(pass.stored[0]) {
            for (j, vector) in row.iter().enumerate().take(pass.stored[1]) {
                // SAFETY: as above.
                unsafe { vector.as_ptr().copy_to(pass.to_places.at(to, i, j).cast_mut(), self.channels) };
            }
        }
    }
}

impl<V: Vector> Port<V> for Few<V::T> {
    #[inline(always)]
    fn load(&self, i: usize, j: usize) -> V {
        // SAFETY: no vector is longer than MOST_LANES.
        unsafe { V::load(self.from[i * SIDE + j].as_ptr()) }
    }

    #[inline(always)]
    fn store(&mut self, i: usize, j: usize, vector: V) {
        // SAFETY: as above.
        unsafe { vector.store(self.to[i * SIDE + j].as_mut_ptr()) };
    }
}

impl<T: Element> Pass<T> {
    /// The same for the type that T is, by name.
    #[cfg(target_arch = "x86_64")]
    fn cast<U: Element>(self) -> Pass<U> {
        assert_eq!(size_of::<T>(), size_of::<U>());
        let Self { from, from_places, to, to_places, tiles, channels, stored } = self;
        Pass { from: from.cast(), from_places, to: to.cast(), to_places, tiles, channels, stored }
    }

    /// # Safety
    /// All places must be in memory, and nobody else may have those of the result; the vectors' instruction set must be there.
    #[inline(always)]
    unsafe fn run<K: Transform, V: Vector<T = T>>(&self) {
        if self.stored == [K::TO; 2] {
            // SAFETY: passed on.
            unsafe { Self { stored: [K::TO; 2], ..*self }.tiles::<K, V>() };
        } else {
            // SAFETY: passed on.
            unsafe { self.tiles::<K, V>() };
        }
    }

    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn tiles<K: Transform, V: Vector<T = T>>(&self) {
        let whole = self.channels / V::LANES * V::LANES;
        for tile in 0..self.tiles {
            for channel in (0..whole).step_by(V::LANES) {
                // SAFETY: the caller's promise.
                K::both::<V>(&mut unsafe { self.at(tile, channel) });
            }
            if whole < self.channels {
                // SAFETY: as above.
                let mut few = Few::new(unsafe { self.at(tile, whole) }, self.channels - whole, K::FROM);
                K::both::<V>(&mut few);
                few.finish();
            }
        }
    }

    /// # Safety
    /// As [`run`](Self::run), for a channel of a tile.
    #[inline(always)]
    unsafe fn at(&self, tile: usize, channel: usize) -> Whole<T> {
        // SAFETY: the caller's promise.
        unsafe {
            Whole {
                pass: *self,
                from: self.from.add(self.from_places.first + tile * self.from_places.tile + channel),
                to: self.to.add(self.to_places.first + tile * self.to_places.tile + channel),
            }
        }
    }
}

/// Most lanes of a vector.
const MOST_LANES: usize = 16;

simd! {
    fn plain[K: Transform, T: Element](isa, _transform: PhantomData<K>, pass: Pass<T>) {
        // SAFETY: `transform` has checked all places; plain vectors are everywhere.
        unsafe { pass.run::<K, Plain<T>>() };
    }
}

/// # Safety
/// As [`Pass::run`], on a machine with AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn avx512<K: Transform>(pass: Pass<f32>) {
    // SAFETY: passed on.
    unsafe { pass.run::<K, std::arch::x86_64::__m512>() };
}

/// # Safety
/// As [`Pass::run`], on a machine with AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<K: Transform>(pass: Pass<f32>) {
    // SAFETY: passed on.
    unsafe { pass.run::<K, std::arch::x86_64::__m256>() };
}

/// Transforms `channels` of each of `tiles` tiles; of the results the first `stored` rows and columns are stored.
fn transform<K: Transform, T: Element>(
    isa: Isa,
    (from, from_places): (&[T], Places),
    (to, to_places): (&mut [T], Places),
    (tiles, channels): (usize, usize),
    stored: [usize; 2],
) {
    if tiles == 0 || channels == 0 {
        return;
    }
    let [rows, columns] = stored;
    assert!((1..=K::TO).contains(&rows) && (1..=K::TO).contains(&columns));
    from_places.assert_within(from.len(), K::FROM, K::FROM, tiles, channels);
    to_places.assert_within(to.len(), rows, columns, tiles, channels);
    let pass = Pass { from: from.as_ptr(), from_places, to: to.as_mut_ptr(), to_places, tiles, channels, stored };
    match (isa.set(), size_of::<T>()) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` of a set exists only where the machine has it, and 4 bytes are f32; the places were checked.
        (Set::Avx512 | Set::Amx, 4) => unsafe { avx512::<K>(pass.cast()) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Set::Avx2, 4) => unsafe { avx2::<K>(pass.cast()) },
        _ => plain::<K, T>(isa, PhantomData, pass),
    }
}

/// V = Bᵀ d B of a row of tiles: `strip` is six padded rows of `columns` pixels of `c` channels, tile t begins at column 4·t;
/// point p of tile t goes to `v[p·plane + t·c..]`.
pub(super) fn input<T: Element>(
    isa: Isa,
    strip: &[T],
    columns: usize,
    c: usize,
    tiles: usize,
    v: &mut [T],
    plane: usize,
) {
    let (from, to) = (Places::pixels(columns, c, TILE * c), Places::planes(plane, c));
    transform::<Input, T>(isa, (strip, from), (v, to), (tiles, c), [SIDE; 2]);
}

/// Y = Aᵀ M A of a row of tiles, without what hangs over the edge: `count` channels of `m[p·plane + t·width..]` to
/// `y[pixel·o..]`, the pixels being `valid` = rows (at most four) and columns.
pub(super) fn output<T: Element>(
    isa: Isa,
    (m, plane, width): (&[T], usize, usize),
    count: usize,
    valid: (usize, usize),
    y: &mut [T],
    o: usize,
) {
    let (rows, columns) = valid;
    let (from, to) = (Places::planes(plane, width), Places::pixels(columns, o, TILE * o));
    let (whole, rest) = (columns / TILE, columns % TILE);
    transform::<Output, T>(isa, (m, from), (y, to), (whole, count), [rows, TILE]);
    if rest > 0 {
        let (from, to) = (Places { first: whole * width, ..from }, Places { first: whole * TILE * o, ..to });
        transform::<Output, T>(isa, (m, from), (y, to), (1, count), [rows, rest]);
    }
}

/// U = G g Gᵀ of `size`: `depth` rows of `columns` weights: tap τ of row k is `g[τ·tap + k·row..]` (strides: tap, row), a
/// column each (if `turned` the last tap first); point p goes to `u[p·plane + k·width..]`, with zeros up to `width`.
pub(super) fn weights<T: Element>(
    isa: Isa,
    g: &[T],
    (tap, row): (usize, usize),
    turned: bool,
    (depth, columns): (usize, usize),
    (u, plane, width): (&mut [T], usize, usize),
) {
    let (down, across) = (3 * tap.cast_signed(), tap.cast_signed());
    let from = if turned {
        Places { first: 8 * tap, row: -down, column: -across, tile: row }
    } else {
        Places { first: 0, row: down, column: across, tile: row }
    };
    transform::<Weight, T>(isa, (g, from), (u, Places::planes(plane, width)), (depth, columns), [SIDE; 2]);
    clear_rest(u, plane, width, depth, columns);
}

/// dM = A dy Aᵀ of a row of tiles: `strip` is four rows of `columns` pixels of `o` channels; the channels from `first` on go, a
/// panel of `width`, to `dm[p·plane + t·width..]`, with zeros where there are no more.
pub(super) fn output_adjoint<T: Element>(
    isa: Isa,
    strip: &[T],
    columns: usize,
    o: usize,
    first: usize,
    (dm, plane, width): (&mut [T], usize, usize),
) {
    let (tiles, count) = (columns / TILE, width.min(o - first));
    let from = Places { first, ..Places::pixels(columns, o, TILE * o) };
    transform::<OutputAdjoint, T>(isa, (strip, from), (dm, Places::planes(plane, width)), (tiles, count), [SIDE; 2]);
    clear_rest(dm, plane, width, tiles, count);
}

/// Zeros from `count` up to `width` in some rows of each point's plane.
fn clear_rest<T: Element>(to: &mut [T], plane: usize, width: usize, rows: usize, count: usize) {
    if count < width {
        for plane in to.chunks_mut(plane).take(POINTS) {
            plane.chunks_exact_mut(width).take(rows).for_each(|row| row[count..].fill(T::ZERO));
        }
    }
}

/// dw = Gᵀ dU G of one input channel: of `du[p·plane..]`, taps of `o` numbers.
pub(super) fn weight_adjoint<T: Element>(isa: Isa, du: &[T], plane: usize, o: usize, dw: &mut [T]) {
    let (from, to) = (Places::planes(plane, 0), Places::pixels(3, o, 0));
    transform::<WeightAdjoint, T>(isa, (du, from), (dw, to), (1, o), [3; 2]);
}
