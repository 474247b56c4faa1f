use ddpm_tensor::{Cpu, Element, View};

use super::block::{Cut, convolve};
use super::weights::Weights;
use crate::conv::cpu::Sizes;
use crate::conv::cpu::direct::tile::Micro;
use crate::operand::Operand;
use crate::operand::cpu::{Rows, pulled_in};
use crate::{KernelError, Pulled};

pub(in crate::conv::cpu) fn input_grad<T: Element>(
    cpu: &Cpu<T>,
    s: &Sizes,
    dy: View<'_, Cpu<T>>,
    w: View<'_, Cpu<T>>,
    x: &Operand<'_, Cpu<T>>,
) -> Result<Pulled<Cpu<T>>, KernelError> {
    let rows = Rows::new(cpu, x);
    let dy = Rows::new(cpu, &Operand::plain(dy));
    let micro = Micro::new::<T>(cpu.isa());
    let weights = Weights::input_grad(cpu, micro, s, w.as_slice());
    let cut = Cut::new(s.n, (s.h, s.w), s.o, cpu.threads());
    let enlarged = if rows.nearest_2x { 2 } else { 1 };
    let stored_rows = cut.part_rows(0).len().div_ceil(enlarged);
    pulled_in(cpu, &rows, s.nanoseconds(), (cut.images, stored_rows), |images, stored, dv| {
        let value = stored.start * enlarged..stored.end * enlarged;
        convolve(cpu, micro, &dy, &weights, (images, value), dv, |_, _, _, _| {});
    })
}
