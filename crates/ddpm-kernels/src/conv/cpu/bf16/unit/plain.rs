//! The units' arithmetic in plain code.

use super::{Block, DEPTH, Products, SIDE, Step, TILE_BYTES};

fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

fn widen(bits: u16) -> f32 {
    flush(f32::from_bits(u32::from(bits) << 16))
}

/// Whose arithmetic it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "as the unit that it belongs to"))]
pub(in super::super) enum Arithmetic {
    /// AMX's (Intel's description of TDPBF16PS): for each result the pairs' first and second products are two chains of
    /// multiply-adds from zero, whose sum is added to the result; denormals count as zero and are flushed.
    Tiles,
    /// That of AVX-512's dot products (of VDPBF16PS): all products are one chain of multiply-adds, of each pair the second
    /// first; denormals as above.
    Dots,
}

/// `sums += a·b` for one tile.
unsafe fn tile(arithmetic: Arithmetic, sums: &mut [[f32; SIDE]; SIDE], a: *const u8, a_row: usize, b: *const u8) {
    for (m, sums) in sums.iter_mut().enumerate() {
        for (n, sum) in sums.iter_mut().enumerate() {
            // SAFETY: both lie in tiles that the caller says are readable.
            let at = |k: usize| unsafe {
                let a = a.add(m * a_row + 2 * k).cast::<[u8; 2]>().read();
                let b = b.add(((k / 2 * SIDE + n) * 2 + k % 2) * 2).cast::<[u8; 2]>().read();
                (widen(u16::from_ne_bytes(a)), widen(u16::from_ne_bytes(b)))
            };
            let add = |sum: f32, (a, b): (f32, f32)| flush(a.mul_add(b, sum));
            *sum = match arithmetic {
                Arithmetic::Tiles => {
                    let chain = |first| (first..DEPTH).step_by(2).map(at).fold(0.0, add);
                    flush(flush(*sum) + flush(chain(0) + chain(1)))
                }
                Arithmetic::Dots => (0..DEPTH).map(|k| at(k ^ 1)).fold(flush(*sum), add),
            };
        }
    }
}

pub(super) unsafe fn block(arithmetic: Arithmetic, steps: &[Step], t: Block, products: Products, add: bool) {
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
                tile(arithmetic, &mut sums, a, t.a_row, b);
                if products == Products::Split {
                    tile(arithmetic, &mut sums, a, t.a_row, b.add(t.b_low));
                    tile(arithmetic, &mut sums, a.add(t.a_low), t.a_row, b);
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            // SAFETY: as above.
            unsafe { at(m).copy_from_nonoverlapping(sums.as_ptr(), SIDE) };
        }
    }
}
