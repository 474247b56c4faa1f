//! Convolutions by multiply-adds of f32 (`kernels/conv.cu`).

use bytemuck::{Pod, Zeroable};
use ddpm_tensor::cuda::{Arguments, CudaBuffer, Launch};
use ddpm_tensor::{Cuda, Tensor, View};

use super::{GradKernel, SHARED_BYTES, Slices, Taps, tile_sides};
use crate::cuda::{small, view, view_or_null};
use crate::operand::cuda::Loaded;
use crate::sums::GROUP;
use crate::{Epilogue, KernelError, Operand, ptx};

/// Threads of a block; columns of a tile; channels of a slice; floats from one position of a slice to the next
/// (`kernels/tile.cuh`).
const THREADS: u32 = 128;
const TILE: usize = 64;
const DEPTH: usize = 16;
const PITCH: usize = 20;
/// Rows of a tile of results, and of one that the weights' gradient sums.
const ROWS: usize = 64;
const GRAD_ROWS: usize = 32;
/// Bytes of two slices of weights.
const WEIGHT_BYTES: usize = 2 * DEPTH * TILE * 4;

/// `ConvShape` in `kernels/conv.cu`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ConvShape {
    images: u32,
    out_height: u32,
    out_width: u32,
    out_channels: u32,
    kernel: u32,
    stride: u32,
    before: u32,
    dilate: u32,
    tile_images: u32,
    tile_height: u32,
    tile_width: u32,
    tiles_y: u32,
    tiles_x: u32,
}

impl ConvShape {
    /// The shape, and the shared memory of a block in bytes. `out` is `[N, H, W, O]` of the result, a position of the halo
    /// takes `position` bytes, and `rest` is what else the block needs.
    fn new(
        operation: &'static str,
        out: [usize; 4],
        taps: Taps,
        (rows, most_images): (usize, usize),
        (position, rest): (usize, usize),
    ) -> Result<(Self, usize), KernelError> {
        let [n, h, w, o] = out;
        let shared =
            |[images, height, width]: [usize; 3]| images * taps.halo(height) * taps.halo(width) * position + rest;
        let sides @ [images, height, width] =
            tile_sides([h, w], rows, most_images, |sides| shared(sides) <= SHARED_BYTES);
        let number = |size: usize| small(operation, size);
        let shape = Self {
            images: number(n)?,
            out_height: number(h)?,
            out_width: number(w)?,
            out_channels: number(o)?,
            kernel: number(taps.kernel)?,
            stride: number(taps.stride)?,
            before: number(taps.before)?,
            dilate: number(taps.dilate)?,
            tile_images: number(images)?,
            tile_height: number(height)?,
            tile_width: number(width)?,
            tiles_y: number(h.div_ceil(height))?,
            tiles_x: number(w.div_ceil(width))?,
        };
        Ok((shape, shared(sides)))
    }

    /// Blocks for tiles of the result times tiles of its channels.
    fn launch(&self, operation: &'static str, shared: usize) -> Result<Launch, KernelError> {
        let tiles = (self.images as usize).div_ceil(self.tile_images as usize) * (self.tiles_y * self.tiles_x) as usize;
        let columns = self.out_channels.div_ceil(TILE as u32);
        Ok(Launch { grid: [small(operation, tiles)?, columns, 1], block: THREADS, shared: shared as u32 })
    }
}

/// `y = (conv(x, w) + …)·scale`, all sizes checked.
pub(super) fn conv(
    cuda: &Cuda,
    x: &Operand<'_, Cuda>,
    w: View<'_, Cuda>,
    taps: Taps,
    e: &Epilogue<'_, Cuda>,
    y: &mut Tensor<Cuda>,
) -> Result<(), KernelError> {
    const OPERATION: &str = "conv";
    let size = y.shape().nhwc();
    let (shape, shared) = ConvShape::new(OPERATION, size, taps, (ROWS, ROWS), (PITCH * 4, WEIGHT_BYTES))?;
    let loaded = Loaded::new(OPERATION, cuda, x)?;
    let arguments = view(Arguments::new().value(loaded.argument), w);
    let arguments = view_or_null(view_or_null(view_or_null(arguments, e.bias), e.channel), e.residual);
    let arguments = arguments.value(e.scale).output(y.view_mut().buffer(), 0).value(shape);
    let launch = shape.launch(OPERATION, shared)?;
    // SAFETY: the arguments of the kernel in its order; operand, weights, epilogue and y were checked against each other.
    unsafe { cuda.launch(ptx::CONV.into(), "conv_f32", launch, &arguments) }?;
    Ok(())
}

/// The gradient of the operand's value, of that size, from dy to elements of a buffer, all sizes checked.
pub(super) fn input_grad(
    cuda: &Cuda,
    dy: &Operand<'_, Cuda>,
    w: View<'_, Cuda>,
    taps: Taps,
    size: [usize; 4],
    dv: &mut CudaBuffer,
    offset: usize,
) -> Result<(), KernelError> {
    const OPERATION: &str = "conv_input_grad";
    let (shape, shared) = ConvShape::new(OPERATION, size, taps, (ROWS, ROWS), (PITCH * 4, WEIGHT_BYTES))?;
    let loaded = Loaded::new(OPERATION, cuda, dy)?;
    let arguments = view(Arguments::new().value(loaded.argument), w);
    let arguments = arguments.output(dv, offset).value(shape);
    let launch = shape.launch(OPERATION, shared)?;
    // SAFETY: the arguments of the kernel in its order; dy, the weights and dv's size were checked against each other.
    unsafe { cuda.launch(ptx::CONV.into(), "conv_input_grad_f32", launch, &arguments) }?;
    Ok(())
}

/// The gradient of the weights, slice by slice, all sizes checked.
pub(super) fn weight_grad(
    cuda: &Cuda,
    dy: View<'_, Cuda>,
    x: &Operand<'_, Cuda>,
    taps: Taps,
) -> Result<Slices, KernelError> {
    const OPERATION: &str = "conv_weight_grad";
    let (name, block_channels) = match taps.kernel {
        1 => ("conv_weight_grad_1_f32", 64),
        _ => ("conv_weight_grad_3_f32", 16),
    };
    let size = dy.shape().nhwc();
    let bytes = ((block_channels + 4) * 4, GRAD_ROWS * TILE * 4);
    let (shape, shared) = ConvShape::new(OPERATION, size, taps, (GRAD_ROWS, GROUP), bytes)?;
    let tile_images = shape.tile_images as usize;
    let block = [TILE, block_channels];
    Slices::of(cuda, dy, x, taps, &GradKernel { module: ptx::CONV, name, block, shape, tile_images, shared })
}
