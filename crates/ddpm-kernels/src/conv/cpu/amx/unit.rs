//! The tile unit: products of 16x32 by 32x16 numbers of bf16, summed in f32, and the same arithmetic in plain code.

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
    /// Plain code with the same order, roundings and flushed denormals: for tests on any machine.
    #[cfg_attr(not(test), expect(dead_code, reason = "what the tests hold the tiles against"))]
    Plain,
}

/// Which products make one of f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Products {
    /// Each number is a sum of two of bf16, `high + low`: high·high + high·low + low·high.
    Split,
    /// Numbers are rounded to bf16.
    Rounded,
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
            // SAFETY: the caller's promise.
            (Unit::Plain, products) => unsafe { plain::block(steps, t, products, add) },
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod amx {
    use std::arch::asm;

    use super::{Block, ROW_BYTES, SIDE, Step};

    #[repr(C, align(64))]
    struct Configuration([u8; 64]);

    /// All eight tiles have 16 rows of 64 bytes.
    static CONFIGURATION: Configuration = {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        let mut tile = 0;
        while tile < 8 {
            bytes[16 + 2 * tile] = ROW_BYTES as u8;
            bytes[48 + tile] = SIDE as u8;
            tile += 1;
        }
        Configuration(bytes)
    };

    pub(super) unsafe fn configure() {
        // SAFETY: reads 64 bytes of the constant.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIGURATION, options(nostack)) };
    }

    pub(super) unsafe fn release() {
        // SAFETY: touches no memory.
        unsafe { asm!("tilerelease", options(nostack)) };
    }

    /// Sums are in tiles 0 to 3 (row tile, column tile): 0 is (0, 0), 1 is (0, 1), 2 is (1, 0), 3 is (1, 1).
    unsafe fn begin(t: Block, add: bool) {
        // SAFETY: reads the result's own tiles, by the caller's promise.
        unsafe {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack));
            if add {
                let s = t.out_row * 4;
                asm!("tileloadd tmm0, [{o} + {s}*1]", o = in(reg) t.out, s = in(reg) s, options(nostack));
                if t.columns == 2 {
                    asm!("tileloadd tmm1, [{o} + {s}*1]", o = in(reg) t.out.add(SIDE), s = in(reg) s, options(nostack));
                }
                if t.rows == 2 {
                    let second = t.out.add(SIDE * t.out_row);
                    asm!("tileloadd tmm2, [{o} + {s}*1]", o = in(reg) second, s = in(reg) s, options(nostack));
                    if t.columns == 2 {
                        asm!("tileloadd tmm3, [{o} + {s}*1]", o = in(reg) second.add(SIDE), s = in(reg) s, options(nostack));
                    }
                }
            }
        }
    }

    unsafe fn end(t: Block) {
        let s = t.out_row * 4;
        // SAFETY: writes the result's own tiles, by the caller's promise.
        unsafe {
            asm!("tilestored [{o} + {s}*1], tmm0", o = in(reg) t.out, s = in(reg) s, options(nostack));
            if t.columns == 2 {
                asm!("tilestored [{o} + {s}*1], tmm1", o = in(reg) t.out.add(SIDE), s = in(reg) s, options(nostack));
            }
            if t.rows == 2 {
                let second = t.out.add(SIDE * t.out_row);
                asm!("tilestored [{o} + {s}*1], tmm2", o = in(reg) second, s = in(reg) s, options(nostack));
                if t.columns == 2 {
                    asm!("tilestored [{o} + {s}*1], tmm3", o = in(reg) second.add(SIDE), s = in(reg) s, options(nostack));
                }
            }
        }
    }

    /// One step of a block: instructions over `a`, `a2` (rows of the second tile), `b`, `b2`, and `…l` for low parts.
    macro_rules! steps {
        ($steps:ident, $t:ident, $($instruction:literal),*) => {
            for step in $steps {
                // SAFETY: reads tiles that the caller says are there.
                unsafe {
                    let (a, b) = ($t.a.add(step.a), $t.b.add(step.b));
                    asm!($($instruction),*,
                        "/* {a} {a2} {al} {al2} {s} {b} {b2} {bl} {bl2} {f} */",
                        a = in(reg) a,
                        a2 = in(reg) a.wrapping_add($t.a_tile),
                        al = in(reg) a.wrapping_add($t.a_low),
                        al2 = in(reg) a.wrapping_add($t.a_low + $t.a_tile),
                        s = in(reg) $t.a_row,
                        b = in(reg) b,
                        b2 = in(reg) b.wrapping_add($t.b_tile),
                        bl = in(reg) b.wrapping_add($t.b_low),
                        bl2 = in(reg) b.wrapping_add($t.b_low + $t.b_tile),
                        f = in(reg) ROW_BYTES,
                        options(nostack, readonly),
                    );
                }
            }
        };
    }

    pub(super) unsafe fn split(steps: &[Step], t: Block, add: bool) {
        // SAFETY: the caller's promise.
        unsafe { begin(t, add) };
        // high·high, then high·low, then low·high, for each of the sums in this order
        match (t.rows, t.columns) {
            (1, 1) => steps!(
                steps,
                t,
                "tileloadd tmm4, [{a} + {s}*1]",
                "tileloadd tmm6, [{b} + {f}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{bl} + {f}*1]",
                "tdpbf16ps tmm0, tmm4, tmm7",
                "tileloadd tmm5, [{al} + {s}*1]",
                "tdpbf16ps tmm0, tmm5, tmm6"
            ),
            (1, _) => steps!(
                steps,
                t,
                "tileloadd tmm4, [{a} + {s}*1]",
                "tileloadd tmm6, [{b} + {f}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b2} + {f}*1]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{bl} + {f}*1]",
                "tdpbf16ps tmm0, tmm4, tmm5",
                "tileloadd tmm5, [{bl2} + {f}*1]",
                "tdpbf16ps tmm1, tmm4, tmm5",
                "tileloadd tmm5, [{al} + {s}*1]",
                "tdpbf16ps tmm0, tmm5, tmm6",
                "tdpbf16ps tmm1, tmm5, tmm7"
            ),
            (_, 1) => steps!(
                steps,
                t,
                "tileloadd tmm6, [{b} + {f}*1]",
                "tileloadd tmm4, [{a} + {s}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a2} + {s}*1]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm7, [{bl} + {f}*1]",
                "tdpbf16ps tmm0, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm7",
                "tileloadd tmm4, [{al} + {s}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{al2} + {s}*1]",
                "tdpbf16ps tmm2, tmm5, tmm6"
            ),
            _ => steps!(
                steps,
                t,
                "tileloadd tmm4, [{a} + {s}*1]",
                "tileloadd tmm6, [{b} + {f}*1]",
                "tileloadd tmm7, [{b2} + {f}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a2} + {s}*1]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm6, [{bl} + {f}*1]",
                "tileloadd tmm7, [{bl2} + {f}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm4, [{al} + {s}*1]",
                "tileloadd tmm6, [{b} + {f}*1]",
                "tileloadd tmm7, [{b2} + {f}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{al2} + {s}*1]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7"
            ),
        }
        // SAFETY: the caller's promise.
        unsafe { end(t) };
    }

    pub(super) unsafe fn rounded(steps: &[Step], t: Block, add: bool) {
        // SAFETY: the caller's promise.
        unsafe { begin(t, add) };
        match (t.rows, t.columns) {
            (1, 1) => steps!(
                steps,
                t,
                "tileloadd tmm4, [{a} + {s}*1]",
                "tileloadd tmm6, [{b} + {f}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6"
            ),
            (1, _) => steps!(
                steps,
                t,
                "tileloadd tmm4, [{a} + {s}*1]",
                "tileloadd tmm6, [{b} + {f}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b2} + {f}*1]",
                "tdpbf16ps tmm1, tmm4, tmm7"
            ),
            (_, 1) => steps!(
                steps,
                t,
                "tileloadd tmm4, [{a} + {s}*1]",
                "tileloadd tmm6, [{b} + {f}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a2} + {s}*1]",
                "tdpbf16ps tmm2, tmm5, tmm6"
            ),
            _ => steps!(
                steps,
                t,
                "tileloadd tmm4, [{a} + {s}*1]",
                "tileloadd tmm6, [{b} + {f}*1]",
                "tileloadd tmm7, [{b2} + {f}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a2} + {s}*1]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7"
            ),
        }
        // SAFETY: the caller's promise.
        unsafe { end(t) };
    }
}

/// AMX's arithmetic in plain code (Intel's description of TDPBF16PS): for each result the pairs' first and second products
/// are two chains of multiply-adds from zero, whose sum is added to the result; denormals count as zero and are flushed.
mod plain {
    use super::{Block, DEPTH, Products, SIDE, Step, TILE_BYTES};

    fn flush(x: f32) -> f32 {
        if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
    }

    fn widen(bits: u16) -> f32 {
        flush(f32::from_bits(u32::from(bits) << 16))
    }

    /// `sums += a·b` for one tile.
    unsafe fn tile(sums: &mut [[f32; SIDE]; SIDE], a: *const u8, a_row: usize, b: *const u8) {
        for (m, sums) in sums.iter_mut().enumerate() {
            for (n, sum) in sums.iter_mut().enumerate() {
                let mut chains = [0.0f32; 2];
                for k in 0..DEPTH {
                    // SAFETY: both lie in tiles that the caller says are readable.
                    let (a, b) = unsafe {
                        let a = a.add(m * a_row + 2 * k).cast::<[u8; 2]>().read();
                        let b = b.add(((k / 2 * SIDE + n) * 2 + k % 2) * 2).cast::<[u8; 2]>().read();
                        (widen(u16::from_ne_bytes(a)), widen(u16::from_ne_bytes(b)))
                    };
                    chains[k % 2] = flush(a.mul_add(b, chains[k % 2]));
                }
                *sum = flush(flush(*sum) + flush(chains[0] + chains[1]));
            }
        }
    }

    pub(super) unsafe fn block(steps: &[Step], t: Block, products: Products, add: bool) {
        debug_assert_eq!(TILE_BYTES, 2 * SIDE * DEPTH);
        for (row, column) in (0..t.rows).flat_map(|row| (0..t.columns).map(move |column| (row, column))) {
            let mut sums = [[0.0; SIDE]; SIDE];
            // SAFETY: the result's tile is ours, by the caller's promise.
            let at = |m: usize| unsafe { t.out.add((row * SIDE + m) * t.out_row + column * SIDE) };
            if add {
                for (m, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: as above.
                    unsafe { at(m).copy_to_nonoverlapping(sums.as_mut_ptr(), SIDE) };
                }
            }
            for step in steps {
                // SAFETY: the steps lead to readable tiles, by the caller's promise.
                unsafe {
                    let (a, b) = (t.a.add(step.a + row * t.a_tile), t.b.add(step.b + column * t.b_tile));
                    tile(&mut sums, a, t.a_row, b);
                    if products == Products::Split {
                        tile(&mut sums, a, t.a_row, b.add(t.b_low));
                        tile(&mut sums, a.add(t.a_low), t.a_row, b);
                    }
                }
            }
            for (m, sums) in sums.iter().enumerate() {
                // SAFETY: as above.
                unsafe { at(m).copy_from_nonoverlapping(sums.as_ptr(), SIDE) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::values;

    /// Random bits of bf16, with denormals, zeros and large numbers among them, none infinite.
    fn numbers(stream: u64, len: usize) -> Vec<u16> {
        values::<f32>(stream, len)
            .iter()
            .enumerate()
            .map(|(i, v)| match i % 37 {
                0 => 0,
                1 => 0x8000,
                2 => 0x0012,
                3 => ((v * 1e-20).to_bits() >> 16) as u16,
                4 => ((v * 1e15).to_bits() >> 16) as u16,
                5 => ((v * 1e-38).to_bits() >> 16) as u16,
                _ => (v.to_bits() >> 16) as u16,
            })
            .collect()
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    #[allow(clippy::print_stderr)] // says what was not tested
    fn plain_code_has_the_bits_of_the_tiles() {
        if !ddpm_tensor::Isa::all().iter().any(|isa| isa.name() == "amx") {
            eprintln!("skipped: this machine has no AMX");
            return;
        }
        // rows of 5 tiles' width, of which steps take three; low parts after the high ones
        let usual = [1, 2].map(|stream| numbers(stream, 4 * 6 * TILE_BYTES / 2));
        // products about the smallest normal number, denormals among operands and results
        let tiny = [4, 5].map(|stream| {
            let values = values::<f32>(stream, 4 * 6 * TILE_BYTES / 2);
            values.iter().enumerate().map(|(i, v)| ((v * [1e-19, 1e-39][i % 9 / 8]).to_bits() >> 16) as u16).collect()
        });
        for ([a, b], size) in [(usual, 1.0), (tiny, 1e-38)] {
            let a: Vec<u16> = a;
            bits_agree(&a, &b, size);
        }
    }

    /// For blocks of every size, in both kinds of products, over results of about `size`.
    #[cfg(target_arch = "x86_64")]
    fn bits_agree(a: &[u16], b: &[u16], size: f32) {
        for products in [Products::Split, Products::Rounded] {
            for (rows, columns) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
                for add in [false, true] {
                    let results = [Unit::Amx, Unit::Plain].map(|unit| {
                        let mut out = values::<f32>(3, 32 * 40);
                        for x in &mut out {
                            *x *= size;
                        }
                        let block = Block {
                            a: a.as_ptr().cast(),
                            a_row: 5 * 64,
                            a_tile: 16 * 5 * 64,
                            a_low: 32 * 5 * 64,
                            b: b.as_ptr().cast(),
                            b_tile: TILE_BYTES,
                            b_low: 2 * TILE_BYTES,
                            out: out.as_mut_ptr(),
                            out_row: 40,
                            rows,
                            columns,
                        };
                        let steps = [Step { a: 0, b: 0 }, Step { a: 130, b: 4 * TILE_BYTES }, Step { a: 256, b: 8192 }];
                        // SAFETY: all of it lies in the vectors above.
                        unsafe { unit.tiles(products).run(&steps, block, add) };
                        out
                    });
                    let differs = (0..results[0].len()).find(|&i| results[0][i].to_bits() != results[1][i].to_bits());
                    if let Some(i) = differs {
                        panic!(
                            "{products:?} {rows}x{columns} add {add}: element {i} is {:e}, in plain code {:e}",
                            results[0][i], results[1][i]
                        );
                    }
                }
            }
        }
    }
}
