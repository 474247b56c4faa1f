//! Sums over the images of a batch on CUDA, added to gradients several at a time.

use std::marker::PhantomData;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use ddpm_tensor::cuda::{Arguments, CudaBuffer, Launch};
use ddpm_tensor::{Cuda, View};

use super::GROUP;
use crate::{KernelError, ptx};

/// Most sums of one launch (`ADDENDS` in `kernels/sums.cu`).
const MOST: usize = 8;
/// Threads of a block.
const THREADS: usize = 256;

/// `Addend` in `kernels/sums.cu`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Entry {
    from: u64,
    to: u64,
    len: u64,
    slice_stride: u64,
    stride: u32,
    slices: u32,
    slices_of_group: u32,
    first_block: u32,
}

/// `Addends` in `kernels/sums.cu`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct List {
    each: [Entry; MOST],
    count: u32,
    none: u32,
}

/// Sums that are added to ranges of gradients, none of which meet.
#[derive(Debug, Default)]
pub(crate) struct Addends<'a> {
    /// Until the launch `to` is where the range begins.
    entries: Vec<Entry>,
    /// What they read.
    reads: PhantomData<&'a CudaBuffer>,
}

impl<'a> Addends<'a> {
    /// Adds sums of slices of images, each of `range.len()` numbers, to a range.
    pub(crate) fn slices(
        &mut self,
        partial: &'a CudaBuffer,
        slices: usize,
        slices_of_group: usize,
        range: &Range<usize>,
    ) {
        self.push((partial.address(0), range.len(), 1), slices, slices_of_group, range);
    }

    /// Adds rows `[N, C]` to a range of C numbers.
    pub(crate) fn rows(&mut self, rows: View<'a, Cuda>, images: usize, range: &Range<usize>) {
        self.push((rows.buffer().address(rows.range().start), range.len(), 1), images, GROUP, range);
    }

    /// Adds the first or second numbers of pairs `[N, C, 2]` to a range of C numbers.
    pub(crate) fn of_pairs(&mut self, pairs: View<'a, Cuda>, which: usize, images: usize, range: &Range<usize>) {
        let from = pairs.buffer().address(pairs.range().start + which);
        self.push((from, 2 * range.len(), 2), images, GROUP, range);
    }

    fn push(
        &mut self,
        (from, slice_stride, stride): (u64, usize, u32),
        slices: usize,
        slices_of_group: usize,
        range: &Range<usize>,
    ) {
        self.entries.push(Entry {
            from,
            to: range.start as u64,
            len: range.len() as u64,
            slice_stride: slice_stride as u64,
            stride,
            slices: slices as u32,
            slices_of_group: slices_of_group as u32,
            first_block: 0,
        });
    }

    /// Adds all of them. The ranges must lie within the gradients, and counts of slices be small: that was checked.
    pub(crate) fn add(mut self, cuda: &Cuda, grads: &mut CudaBuffer) -> Result<(), KernelError> {
        let base = grads.address_to_write(0);
        self.entries.retain(|entry| entry.len * u64::from(entry.slices) > 0);
        for some in self.entries.chunks(MOST) {
            let mut list = List::zeroed();
            let mut blocks = 0;
            for (to, from) in list.each.iter_mut().zip(some) {
                *to = Entry { to: base + from.to * size_of::<f32>() as u64, first_block: blocks, ..*from };
                blocks += from.len.div_ceil(THREADS as u64) as u32;
            }
            list.count = some.len() as u32;
            let launch = Launch { grid: [blocks, 1, 1], block: THREADS as u32, shared: 0 };
            let arguments = Arguments::new().value(list);
            // SAFETY: the argument of the kernel; each entry reads slices of a buffer that its maker checked, and adds to a range
            // of the gradients.
            unsafe { cuda.launch(ptx::SUMS.into(), "add_sums_f32", launch, &arguments) }?;
        }
        Ok(())
    }
}
