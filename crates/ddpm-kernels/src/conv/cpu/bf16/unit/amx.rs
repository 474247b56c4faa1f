//! Blocks on AMX: sums stay in tiles 0 to 3, operands pass through 4 to 7.

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
