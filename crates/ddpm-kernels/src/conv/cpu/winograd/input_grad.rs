use ddpm_tensor::{Cpu, Element, View};

use super::block::Block;
use super::convolution::Convolution;
use super::cut;
use super::weights::Weights;
use crate::conv::cpu::Sizes;
use crate::conv::cpu::direct::tile::Micro;
use crate::operand::Operand;
use crate::operand::cpu::{Cut, Rows, pulled};
use crate::{KernelError, Pulled};

/// The gradient of the operand's value is the convolution of dy with the weights turned around.
pub(in crate::conv::cpu) fn input_grad<T: Element>(
    cpu: &Cpu<T>,
    s: &Sizes,
    dy: View<'_, Cpu<T>>,
    w: View<'_, Cpu<T>>,
    x: &Operand<'_, Cpu<T>>,
) -> Result<Pulled<Cpu<T>>, KernelError> {
    let rows = Rows::new(cpu, x);
    let dy = Rows::new(cpu, &Operand::plain(dy));
    let weights = Weights::new(Micro::new::<T>(cpu.isa()), s, w, true);
    let (part, images) = cut::rows_and_images([s.n, s.h, s.w], s.o, cpu.threads());
    let cut = Cut::fixed(s.n, s.h, part, images);
    let convolution = Convolution::new(cpu, &dy, weights, &cut, s.nanoseconds());
    let enlarged = if rows.nearest_2x { 2 } else { 1 };
    let stored = Cut::fixed(s.n, rows.stored[1], part.div_ceil(enlarged), images);
    pulled(cpu, &rows, stored, s.nanoseconds(), |images, stored, dv| {
        let block = Block { images, rows: stored.start * enlarged..stored.end * enlarged, w: s.w };
        convolution.block(cpu, &block, dv, |_, _, _, _| {});
    })
}
