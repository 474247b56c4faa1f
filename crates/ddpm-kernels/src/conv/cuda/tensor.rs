//! Convolutions on tensor cores (`kernels/conv_tensor.cu`): numbers rounded to bf16, or as sums of two of bf16.

use bytemuck::{Pod, Zeroable};
use ddpm_tensor::cuda::{Arguments, CudaBuffer, Launch};
use ddpm_tensor::{Cuda, Device, Tensor, View};

use super::pack::Packed;
use super::{GradKernel, SHARED_BYTES, Slices, Taps, tile_sides};
use crate::cuda::{Numbers, small, view_or_null};
use crate::operand::cuda::Loaded;
use crate::sums::GROUP;
use crate::{Epilogue, KernelError, Operand, ptx};

/// Rows of a slice of weights, and bytes of a pixel's slice of the operand (`SLICE_ROWS` and chunks in
/// `kernels/mma_tile.cuh`).
pub(super) const SLICE_ROWS: usize = 32;
const SLICE_BYTES: usize = 64;
/// Slices of weights in shared memory.
const STAGES: usize = 3;
/// Columns of dy and rows of pixels of a block of the weights' gradient.
const GRAD_COLUMNS: usize = 64;
const GRAD_ROWS: usize = 64;
/// Parts of K from so many channels on.
const PARTS_FROM: usize = 128;

impl Numbers {
    /// Numbers of bf16 that stand for one.
    pub(super) fn parts(self) -> usize {
        match self {
            Self::Rounded => 1,
            Self::Split => 2,
        }
    }

    /// Channels of a slice.
    pub(super) fn depth(self) -> usize {
        SLICE_ROWS / self.parts()
    }
}

/// `ConvTiles` in `kernels/conv_tensor.cu`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Tiles {
    images: u32,
    out_height: u32,
    out_width: u32,
    out_channels: u32,
    kernel: u32,
    stride: u32,
    before: u32,
    dilate: u32,
    width_log: u32,
    images_log: u32,
    height_log: u32,
    tiles_y: u32,
    tiles_x: u32,
    halo_height: u32,
    halo_width: u32,
    halo_rows: u32,
    slices: u32,
    part_slices: u32,
    columns: u32,
}

/// Rows of shared memory from one image's halo to the next: where a tile's rows are narrower than the eight that `ldmatrix`
/// reads, the next image goes on in other banks.
fn halo_rows(taps: Taps, [images, height, width]: [usize; 3]) -> usize {
    let own = taps.halo(height) * taps.halo(width);
    if images == 1 || width >= 8 { own } else { own + (width + 8 - own % 8) % 8 }
}

impl Tiles {
    /// The tiles, and the shared memory of a block in bytes. `out` is `[N, H, W, O]` of the result, a pixel of the halo takes
    /// `row` bytes, and `rest` is what else the block needs.
    fn new(
        operation: &'static str,
        out: [usize; 4],
        taps: Taps,
        (rows, most_images): (usize, usize),
        (row, rest): (usize, usize),
    ) -> Result<(Self, usize), KernelError> {
        let [n, h, w, o] = out;
        let shared = |sides: [usize; 3]| sides[0] * halo_rows(taps, sides) * row + rest;
        let sides @ [images, height, width] =
            tile_sides([h, w], rows, most_images, |sides| shared(sides) <= SHARED_BYTES);
        let number = |size: usize| small(operation, size);
        let tiles = Self {
            images: number(n)?,
            out_height: number(h)?,
            out_width: number(w)?,
            out_channels: number(o)?,
            kernel: number(taps.kernel)?,
            stride: number(taps.stride)?,
            before: number(taps.before)?,
            dilate: number(taps.dilate)?,
            width_log: width.ilog2(),
            images_log: images.ilog2(),
            height_log: height.ilog2(),
            tiles_y: number(h.div_ceil(height))?,
            tiles_x: number(w.div_ceil(width))?,
            halo_height: number(taps.halo(height))?,
            halo_width: number(taps.halo(width))?,
            halo_rows: number(halo_rows(taps, sides))?,
            slices: 0,
            part_slices: 0,
            columns: 0,
        };
        Ok((tiles, shared(sides)))
    }

    /// Tiles of all images.
    fn count(&self) -> usize {
        (self.images as usize).div_ceil(1 << self.images_log) * (self.tiles_y * self.tiles_x) as usize
    }
}

/// A kernel and the pixels and channels that its blocks make: the same bits from each.
#[derive(Debug, Clone, Copy)]
struct Variant {
    kernel: &'static str,
    rows: usize,
    columns: usize,
}

impl Variant {
    const fn new(kernel: &'static str, rows: usize, columns: usize) -> Self {
        Self { kernel, rows, columns }
    }

    /// All of them, the largest first.
    fn all(numbers: Numbers) -> &'static [Self] {
        const ROUNDED: [Variant; 2] =
            [Variant::new("conv_rounded_128x128", 128, 128), Variant::new("conv_rounded_64x64", 64, 64)];
        const SPLIT: [Variant; 2] =
            [Variant::new("conv_split_128x64", 128, 64), Variant::new("conv_split_64x64", 64, 64)];
        match numbers {
            Numbers::Rounded => &ROUNDED,
            Numbers::Split => &SPLIT,
        }
    }

    /// The largest whose blocks give each multiprocessor two, else the smallest.
    fn choose(cuda: &Cuda, numbers: Numbers, out: [usize; 4], taps: Taps, parts: usize) -> Self {
        let [n, h, w, o] = out;
        let all = Self::all(numbers);
        let enough = |v: &&Self| {
            // strided halos are large, and half of a wide block would be of no channel
            let fits = taps.stride == 1 && o > v.columns / 2;
            fits && (n * h * w).div_ceil(v.rows) * o.div_ceil(v.columns) * parts >= 2 * cuda.info().multiprocessors
        };
        *all.iter().find(enough).unwrap_or(&all[all.len() - 1])
    }

    /// Threads of a block.
    fn threads(self) -> u32 {
        2 * self.columns as u32
    }

    /// Bytes of a ring of slices of weights.
    fn ring(self) -> usize {
        STAGES * SLICE_ROWS * self.columns * 2
    }
}

/// Parts into which the operand's channels are cut, so that small images give enough blocks: a matter of one image's shape.
fn parts_of_k(pixels: usize, channels: usize) -> usize {
    match pixels {
        _ if channels < PARTS_FROM => 1,
        0..=16 => 4,
        17..=64 => 2,
        _ => 1,
    }
}

/// A product `x ∗ w` whose sizes were checked, up to its epilogue.
pub(super) struct Product<'a> {
    pub(super) operation: &'static str,
    pub(super) numbers: Numbers,
    pub(super) x: &'a Operand<'a, Cuda>,
    /// `turned` weights are read with flipped taps, from O to C.
    pub(super) w: View<'a, Cuda>,
    pub(super) turned: bool,
    pub(super) taps: Taps,
    /// `[N, H, W, O]` of the result.
    pub(super) size: [usize; 4],
}

impl Product<'_> {
    fn slices(&self) -> usize {
        self.x.size()[3].div_ceil(self.numbers.depth())
    }

    /// Slices of the operand's channels that one part sums.
    fn part_slices(&self) -> usize {
        let [_, h, w, _] = self.size;
        self.slices().div_ceil(parts_of_k(h * w, self.x.size()[3])).max(1)
    }

    /// Parts in which the product comes, to be added in order.
    pub(super) fn parts(&self) -> usize {
        self.slices().div_ceil(self.part_slices()).max(1)
    }

    /// Computes the parts `[parts, N, H, W, O]` to elements of a buffer; of a single one with an epilogue.
    pub(super) fn launch(
        &self,
        cuda: &Cuda,
        e: &Epilogue<'_, Cuda>,
        y: &mut CudaBuffer,
        offset: usize,
    ) -> Result<(), KernelError> {
        let Self { operation, numbers, x, w, turned, taps, size } = *self;
        let (channels, o, parts) = (x.size()[3], size[3], self.parts());
        let variant = Variant::choose(cuda, numbers, size, taps, parts);
        let (mut tiles, shared) =
            Tiles::new(operation, size, taps, (variant.rows, variant.rows), (SLICE_BYTES, variant.ring()))?;
        let columns = o.next_multiple_of(variant.columns);
        tiles.slices = small(operation, self.slices())?;
        tiles.part_slices = small(operation, self.part_slices())?;
        tiles.columns = small(operation, columns)?;
        let packed = Packed { numbers, turned, taps: taps.kernel * taps.kernel, depth: channels, width: o, columns };
        let packed = packed.of(operation, cuda, w)?;
        let loaded = Loaded::new(operation, cuda, x)?;
        let launch = Launch {
            grid: [small(operation, tiles.count())?, tiles.columns / variant.columns as u32, parts as u32],
            block: variant.threads(),
            shared: shared as u32,
        };
        let arguments = Arguments::new().value(loaded.argument).input(&packed, 0);
        let arguments = epilogue(arguments, e).output(y, offset).value(tiles);
        // SAFETY: the arguments of the kernel in its order; operand, weights, epilogue and y were checked against each other, the
        // packed weights have the tiles' slices and columns, and y has room for every part.
        unsafe { cuda.launch(ptx::CONV_TENSOR.into(), variant.kernel, launch, &arguments) }?;
        Ok(())
    }

    /// `y = (x ∗ w + …)·scale`.
    pub(super) fn store(&self, cuda: &Cuda, e: &Epilogue<'_, Cuda>, y: &mut Tensor<Cuda>) -> Result<(), KernelError> {
        let parts = self.parts();
        if parts == 1 {
            return self.launch(cuda, e, y.view_mut().buffer(), 0);
        }
        let [_, h, w, o] = self.size;
        let len = y.shape().len();
        let mut partial = cuda.alloc(parts * len)?;
        self.launch(cuda, &Epilogue::default(), &mut partial, 0)?;
        let arguments = epilogue(Arguments::new().input(&partial, 0), e).output(y.view_mut().buffer(), 0);
        let arguments = arguments.value(parts as u32).value(len as u64).value((h * w * o) as u64).value(o as u32);
        // SAFETY: the arguments of the kernel in its order; the parts and the epilogue have y's size.
        unsafe { cuda.launch(ptx::CONV_TENSOR.into(), "add_parts_f32", Launch::over(len), &arguments) }?;
        Ok(())
    }
}

/// Bias, vectors, residual and scale as arguments.
fn epilogue(arguments: Arguments, e: &Epilogue<'_, Cuda>) -> Arguments {
    view_or_null(view_or_null(view_or_null(arguments, e.bias), e.channel), e.residual).value(e.scale)
}

/// The gradient of the weights, slice by slice, all sizes checked.
pub(super) fn weight_grad(
    cuda: &Cuda,
    numbers: Numbers,
    dy: View<'_, Cuda>,
    x: &Operand<'_, Cuda>,
    taps: Taps,
) -> Result<Slices, KernelError> {
    const OPERATION: &str = "conv_weight_grad";
    let (name, block_channels) = match (numbers, taps.kernel) {
        (Numbers::Rounded, 1) => ("conv_weight_grad_1_rounded", 64),
        (Numbers::Rounded, _) => ("conv_weight_grad_3_rounded", 32),
        (Numbers::Split, 1) => ("conv_weight_grad_1_split", 64),
        (Numbers::Split, _) => ("conv_weight_grad_3_split", 32),
    };
    let size = dy.shape().nhwc();
    let row = |channels: usize| numbers.parts() * channels * 2;
    let bytes = (row(block_channels), GRAD_ROWS * row(GRAD_COLUMNS));
    let (tiles, shared) = Tiles::new(OPERATION, size, taps, (GRAD_ROWS, GROUP), bytes)?;
    let tile_images = 1 << tiles.images_log;
    let block = [GRAD_COLUMNS, block_channels];
    let module = ptx::CONV_TENSOR;
    Slices::of(cuda, dy, x, taps, &GradKernel { module, name, block, shape: tiles, tile_images, shared })
}
