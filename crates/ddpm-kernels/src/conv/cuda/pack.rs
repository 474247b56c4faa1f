//! Weights in the order in which blocks on tensor cores read them: packed once after each change, all of a buffer in one launch.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use ddpm_tensor::cuda::{Arguments, CudaBuffer, Launch, Stale};
use ddpm_tensor::{Cuda, Device, View};

use super::tensor::SLICE_ROWS;
use crate::cuda::{Numbers, small};
use crate::{KernelError, ptx};

/// Threads of a block, each of which packs eight columns of a row.
const THREADS: u32 = 256;

/// What is packed, and how; also its name among what is kept of a buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed {
    pub(super) numbers: Numbers,
    /// Whether taps are flipped, and read from O to C.
    pub(super) turned: bool,
    pub(super) taps: usize,
    /// Channels that are summed.
    pub(super) depth: usize,
    /// Channels of the result, and with zeros.
    pub(super) width: usize,
    pub(super) columns: usize,
}

/// `PackedWeights` in `kernels/conv_tensor.cu`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Entry {
    from: u64,
    to: u64,
    taps: u32,
    depth: u32,
    width: u32,
    columns: u32,
    parts: u32,
    turned: u32,
    first_block: u32,
    chunks: u32,
}

/// Fields of a key: where the weights begin in their buffer, then those of an [`Entry`] from `taps` to `turned`, and chunks.
type Key = [u64; 8];

impl Packed {
    fn slices(&self) -> usize {
        self.depth.div_ceil(self.numbers.depth())
    }

    fn key(&self, from: usize) -> Key {
        let chunks = self.slices() * self.taps * self.numbers.depth() * self.columns / 8;
        let sizes = [from, self.taps, self.depth, self.width, self.columns, self.numbers.parts()];
        let [from, taps, depth, width, columns, parts] = sizes.map(|size| size as u64);
        [from, taps, depth, width, columns, parts, u64::from(self.turned), chunks as u64]
    }

    /// The packed weights, and those of all other products that read the same buffer, if it was written since they were made.
    pub(super) fn of(
        &self,
        operation: &'static str,
        cuda: &Cuda,
        w: View<'_, Cuda>,
    ) -> Result<Arc<CudaBuffer>, KernelError> {
        let key = self.key(w.range().start);
        key.iter().skip(1).try_for_each(|&size| small(operation, size as usize).map(drop))?;
        // two numbers of bf16 in the room of one of f32
        let alloc = || Ok(cuda.alloc(self.slices() * self.taps * SLICE_ROWS * self.columns / 2)?);
        w.buffer().renewed(&key, alloc, |stale| pack(operation, cuda, w.buffer(), stale))
    }
}

fn pack(operation: &'static str, cuda: &Cuda, weights: &CudaBuffer, mut stale: Stale<'_>) -> Result<(), KernelError> {
    let mut blocks = 0;
    let mut words = Vec::new();
    for (key, to) in &stale.all {
        let Ok([from, taps, depth, width, columns, parts, turned, chunks]) = Key::try_from(key.as_slice()) else {
            let what = "something else is kept of the weights".into();
            return Err(KernelError::Setting { operation, what });
        };
        let [taps, depth, width, columns, parts, turned, chunks] =
            [taps, depth, width, columns, parts, turned, chunks].map(|field| field as u32);
        let first_block = blocks;
        let entry = Entry { from, to: to.address(0), taps, depth, width, columns, parts, turned, first_block, chunks };
        words.extend_from_slice(bytemuck::cast_slice::<Entry, u64>(&[entry]));
        blocks += chunks.div_ceil(THREADS);
    }
    let count = stale.all.len() as u32;
    let list = stale.list(cuda, words)?;
    let arguments = Arguments::new().input(weights, 0).input(list, 0).value(count);
    let launch = Launch { grid: [blocks.max(1), 1, 1], block: THREADS, shared: 0 };
    // SAFETY: the arguments of the kernel in its order; each entry's weights are a view of the buffer, and its place has
    // SLICE_ROWS rows of `columns` numbers for each slice and tap.
    unsafe { cuda.launch(ptx::CONV_TENSOR.into(), "pack_weights", launch, &arguments) }?;
    Ok(())
}
