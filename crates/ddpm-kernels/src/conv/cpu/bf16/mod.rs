//! Convolutions as products of tiles of bf16: each number of f32 is split into two of bf16, and three products of them are summed in
//! f32 (Henry, Tang and Heinecke 2019; on AMX), or numbers are rounded to bf16 and multiplied once (on AMX, or by AVX-512's dot
//! products).
//!
//! A padded image, flattened, is itself the left operand of every tap: tap (ky, kx) of pixel q reads position
//! `q + ky·columns + kx`. Rows of the product that fall on the padding are computed and thrown away.

mod forward;
mod input_grad;
mod left;
mod order;
mod parts;
#[cfg(test)]
mod tests;
mod unit;
mod weight_grad;
mod weights;

use std::ops::Range;

use ddpm_tensor::{Cpu, Element};

pub(super) use forward::conv;
pub(super) use input_grad::input_grad;
#[cfg(test)]
use unit::Arithmetic;
use unit::{Products, Tiles, Unit};

use super::Sizes;
use crate::operand::cpu::Cut;
pub(super) use weight_grad::weight_grad;

/// How much faster than `direct`, roughly: for the choice of threads only.
const FASTER: usize = 4;
/// Multiply-adds of a part of an image.
const PART_WORK: usize = 5 << 24;
/// Bytes of packed images and results of a task: they stay in the second-level cache while panels of weights pass.
const TASK_BYTES: usize = 5 << 18;
/// Numbers of an operand that are made at a time, so that they are split while in the first-level cache.
const STRIP: usize = 6 << 10;

/// What multiplies, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::conv) struct Engine {
    unit: Unit,
    products: Products,
}

impl Engine {
    /// Three products for each of f32, on AMX.
    #[cfg(target_arch = "x86_64")]
    pub(super) const SPLIT: Self = Self { unit: Unit::Amx, products: Products::Split };

    /// One product of rounded numbers, on AMX.
    #[cfg(target_arch = "x86_64")]
    pub(super) const ROUNDED: Self = Self { unit: Unit::Amx, products: Products::Rounded };

    /// One product of rounded numbers, by dot products of pairs.
    #[cfg(target_arch = "x86_64")]
    pub(super) const DOTS: Self = Self { unit: Unit::Dot, products: Products::Rounded };

    /// What stands in, in plain code, for SPLIT, ROUNDED and DOTS.
    #[cfg(test)]
    pub(super) const PLAIN: [Self; 3] = [
        Self { unit: Unit::Plain(Arithmetic::Tiles), products: Products::Split },
        Self { unit: Unit::Plain(Arithmetic::Tiles), products: Products::Rounded },
        Self { unit: Unit::Plain(Arithmetic::Dots), products: Products::Rounded },
    ];

    /// Parts that numbers are stored in.
    fn parts(self) -> usize {
        self.products.parts()
    }

    /// Tiles for this thread.
    fn tiles(self) -> Tiles {
        self.unit.tiles(self.products)
    }
}

/// Some whole images a task, as many as `pixel` numbers for each of their `height · width` pixels leave room for: packed weights
/// are read again for each task.
fn cut<T: Element>(cpu: &Cpu<T>, s: &Sizes, (height, width): (usize, usize), pixel: usize) -> Cut {
    let parts = (s.out_h * s.row_work()).div_ceil(PART_WORK).clamp(1, height);
    let images = TASK_BYTES / (height * width * pixel * size_of::<T>()).max(1);
    Cut::by_images(s.n, height, height.div_ceil(parts), images, cpu.threads())
}

/// Rows of `numbers` numbers that are made at a time: an even number of them.
fn strip_rows(numbers: usize) -> usize {
    (STRIP / numbers.max(1)).max(2) / 2 * 2
}

/// Calls `make(rows done, rows)` for strips of `count` rows from `from` on, at most `strip` each; a strip ends before an even
/// row, so that rows that an enlarged operand makes twice are made together.
fn strips(from: isize, count: usize, strip: usize, mut make: impl FnMut(usize, Range<isize>)) {
    let end = from + count as isize;
    let mut first = from;
    while first < end {
        let next = (first + strip as isize - first.rem_euclid(2)).min(end);
        make((first - from) as usize, first..next);
        first = next;
    }
}
