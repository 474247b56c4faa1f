//! What multiplies: products of tiles of 16x32 by 32x16 numbers of bf16, summed in f32, by AMX or by AVX-512's dot products, and the
//! arithmetic of both in plain code.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod dot;
mod plain;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use plain::Arithmetic;

/// A row of a tile, in bytes: 32 numbers of bf16 or 16 of f32.
pub(super) const ROW_BYTES: usize = 64;
/// A tile, in bytes.
pub(super) const TILE_BYTES: usize = 16 * ROW_BYTES;
/// Rows of a tile, and columns of a result's.
pub(super) const SIDE: usize = 16;
/// Steps of k in one product of tiles.
pub(super) const DEPTH: usize = 32;

/// What multiplies tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// AMX. Made only where the machine has it.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// AVX-512's dot products of pairs, for rounded numbers. Made only where the machine has them.
    #[cfg(target_arch = "x86_64")]
    Dot,
    /// Plain code with the order, roundings and flushed denormals of one of them: for tests on any machine.
    #[cfg_attr(not(test), expect(dead_code, reason = "what the tests hold the units against"))]
    Plain(plain::Arithmetic),
}

/// Which products make one of f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Products {
    /// Each number is a sum of two of bf16, `high + low`: high·high + high·low + low·high.
    Split,
    /// Numbers are rounded to bf16.
    Rounded,
}

impl Products {
    /// Parts that a number is stored in.
    pub(super) fn parts(self) -> usize {
        match self {
            Self::Split => 2,
            Self::Rounded => 1,
        }
    }
}

/// Where a product of tiles finds its operands, in bytes from the block's own addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) a: usize,
    pub(super) b: usize,
}

/// A block of one or two tiles of rows by one or two tiles of columns:
/// `out[m][n] (+)= Σ_steps Σ_k a[m][step.a + k] · b[step.b + k][n]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// Rows of the left operand, `a_row` bytes after each other; the second tile `a_tile` bytes later, low parts `a_low`.
    pub(super) a: *const u8,
    pub(super) a_row: usize,
    pub(super) a_tile: usize,
    pub(super) a_low: usize,
    /// Whole tiles of pairs of rows: the second tile `b_tile` bytes later, low parts `b_low`.
    pub(super) b: *const u8,
    pub(super) b_tile: usize,
    pub(super) b_low: usize,
    pub(super) out: *mut f32,
    /// Numbers from one row of the result to the next.
    pub(super) out_row: usize,
    /// Tiles of rows and of columns: 1 or 2.
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// The right to use the unit on this thread until dropped: tiles are configured once for many blocks.
pub(super) struct Tiles {
    unit: Unit,
    products: Products,
    /// Tiles belong to a thread.
    thread: std::marker::PhantomData<*const ()>,
}

impl Unit {
    pub(super) fn tiles(self, products: Products) -> Tiles {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Amx {
            // SAFETY: the unit exists only where the machine and the system allow its use.
            unsafe { amx::configure() };
        }
        Tiles { unit: self, products, thread: std::marker::PhantomData }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        if self.unit == Unit::Amx {
            // SAFETY: as in `Unit::tiles`; tiles that are given back cost no time when threads are switched.
            unsafe { amx::release() };
        }
    }
}

impl Tiles {
    /// Computes a block; adds to what is there if `add`.
    ///
    /// # Safety
    /// All tiles that the steps lead to must be readable, the result's writable and not shared.
    pub(super) unsafe fn run(&self, steps: &[Step], t: Block, add: bool) {
        match (self.unit, self.products) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the tiles are configured while `self` lives; the rest is the caller's promise.
            (Unit::Amx, Products::Split) => unsafe { amx::split(steps, t, add) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Unit::Amx, Products::Rounded) => unsafe { amx::rounded(steps, t, add) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the unit exists only where the machine has it; the rest is the caller's promise.
            (Unit::Dot, Products::Rounded) => unsafe { dot::rounded(steps, t, add) },
            #[cfg(target_arch = "x86_64")]
            (Unit::Dot, Products::Split) => unreachable!("dot products are for rounded numbers"),
            // SAFETY: the caller's promise.
            (Unit::Plain(arithmetic), products) => unsafe { plain::block(arithmetic, steps, t, products, add) },
        }
    }
}
