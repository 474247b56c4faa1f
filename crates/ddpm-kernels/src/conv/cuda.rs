//! Convolutions on CUDA: tiles of the result are chosen here, by the shape alone.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use ddpm_tensor::cuda::{Arguments, CudaBuffer, Launch};
use ddpm_tensor::{Cuda, Device, Shape, Tensor, View};

use super::Geometry;
use crate::cuda::{range_of, small, view, view_or_null};
use crate::error::expect;
use crate::operand::cuda::{Loaded, is_stored, pull};
use crate::sums::GROUP;
use crate::{Epilogue, KernelError, Operand, Output, Pulled, ptx, statistics};

/// Threads of a block; columns of a tile; channels of a slice; floats from one position of a slice to the next
/// (`kernels/tile.cuh`).
const THREADS: u32 = 128;
const TILE: usize = 64;
const DEPTH: usize = 16;
const PITCH: usize = 20;
/// Rows of a tile of results, and of one that the weights' gradient sums.
const ROWS: usize = 64;
const GRAD_ROWS: usize = 32;
/// Shared memory that every GPU gives a block.
const SHARED_BYTES: usize = 48 * 1024;
/// Pixels that a slice of the weights' gradient sums, where a group of images has as many.
const SLICE_PIXELS: usize = 4096;

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
    /// `out` is `[N, H, W, O]` of the result; a position of the halo takes `position_bytes` of shared memory, and `rest` is
    /// what else the block needs.
    #[allow(clippy::too_many_arguments)] // a shape has many sizes
    fn new(
        operation: &'static str,
        out: [usize; 4],
        (kernel, stride, before, dilate): (usize, usize, usize, usize),
        rows: usize,
        most_images: usize,
        position_bytes: usize,
        rest: usize,
    ) -> Result<(Self, usize), KernelError> {
        let [n, h, w, o] = out;
        let mut height = h.next_power_of_two().min(8);
        let width = w.next_power_of_two().min(rows / height);
        height = h.next_power_of_two().min(rows / width);
        let mut images = (rows / width / height).min(most_images);
        let halo = |images: usize, height: usize| {
            images * ((height - 1) * stride + kernel) * ((width - 1) * stride + kernel) * position_bytes + rest
        };
        // tiny images under a large kernel have more halo than image: fewer rows then
        while halo(images, height) > SHARED_BYTES {
            if images > 1 {
                images /= 2;
            } else {
                height /= 2;
            }
        }
        let number = |size: usize| small(operation, size);
        let shape = Self {
            images: number(n)?,
            out_height: number(h)?,
            out_width: number(w)?,
            out_channels: number(o)?,
            kernel: number(kernel)?,
            stride: number(stride)?,
            before: number(before)?,
            dilate: number(dilate)?,
            tile_images: number(images)?,
            tile_height: number(height)?,
            tile_width: number(width)?,
            tiles_y: number(h.div_ceil(height))?,
            tiles_x: number(w.div_ceil(width))?,
        };
        Ok((shape, halo(images, height)))
    }

    /// Tiles of all images.
    fn tiles(&self) -> usize {
        (self.images as usize).div_ceil(self.tile_images as usize) * self.tiles_y as usize * self.tiles_x as usize
    }
}

/// Blocks for tiles of the result times tiles of its channels.
fn product_launch(operation: &'static str, s: &ConvShape, shared: usize) -> Result<Launch, KernelError> {
    let columns = (s.out_channels as usize).div_ceil(TILE) as u32;
    Ok(Launch { grid: [small(operation, s.tiles())?, columns, 1], block: THREADS, shared: shared as u32 })
}

/// Bytes of two slices of weights.
const WEIGHT_BYTES: usize = 2 * DEPTH * TILE * 4;

/// [`Backend::conv`](crate::Backend::conv).
pub(crate) fn conv(
    cuda: &Cuda,
    x: &Operand<'_, Cuda>,
    w: View<'_, Cuda>,
    g: Geometry,
    e: &Epilogue<'_, Cuda>,
) -> Result<Output<Cuda>, KernelError> {
    const OPERATION: &str = "conv";
    x.check(OPERATION)?;
    let [n, h, width, c] = x.size();
    let o = w.shape().nhwc()[3];
    expect(OPERATION, "the weight", [g.kernel, g.kernel, c, o], w.shape())?;
    let (out_h, out_w) = g.output(h, width)?;
    let size = [n, out_h, out_w, o];
    e.check(OPERATION, size)?;
    let mut y = Tensor::alloc(cuda, size)?;
    if !y.shape().is_empty() {
        let taps = (g.kernel, g.stride, g.before(), 1);
        let (shape, shared) = ConvShape::new(OPERATION, size, taps, ROWS, ROWS, PITCH * 4, WEIGHT_BYTES)?;
        let loaded = Loaded::new(OPERATION, cuda, x)?;
        let arguments = view(Arguments::new().value(loaded.argument), w);
        let arguments = view_or_null(view_or_null(view_or_null(arguments, e.bias), e.channel), e.residual);
        let arguments = arguments.value(e.scale).output(y.view_mut().buffer(), 0).value(shape);
        let launch = product_launch(OPERATION, &shape, shared)?;
        // SAFETY: the arguments of the kernel in its order; operand, weights, epilogue and y were checked against each other.
        unsafe { cuda.launch(ptx::CONV.into(), "conv_f32", launch, &arguments) }?;
    }
    let statistics = if e.statistics { Some(statistics::cuda::channels(cuda, y.view())?) } else { None };
    Ok(Output { y, statistics })
}

/// [`Backend::conv_input_grad`](crate::Backend::conv_input_grad).
pub(crate) fn input_grad(
    cuda: &Cuda,
    dy: View<'_, Cuda>,
    w: View<'_, Cuda>,
    g: Geometry,
    x: &Operand<'_, Cuda>,
) -> Result<Pulled<Cuda>, KernelError> {
    const OPERATION: &str = "conv_input_grad";
    x.check(OPERATION)?;
    let size @ [n, h, width, c] = x.size();
    let o = w.shape().nhwc()[3];
    expect(OPERATION, "the weight", [g.kernel, g.kernel, c, o], w.shape())?;
    let (out_h, out_w) = g.output(h, width)?;
    expect(OPERATION, "dy", [n, out_h, out_w, o], dy.shape())?;
    let mut dv = Tensor::alloc(cuda, size)?;
    if !dv.shape().is_empty() {
        let taps = (g.kernel, 1, g.kernel - 1 - g.before(), g.stride);
        let (shape, shared) = ConvShape::new(OPERATION, size, taps, ROWS, ROWS, PITCH * 4, WEIGHT_BYTES)?;
        let dy = dy.reshape([n, out_h, out_w, o])?;
        let loaded = Loaded::new(OPERATION, cuda, &Operand::plain(dy))?;
        let arguments = view(Arguments::new().value(loaded.argument), w);
        let arguments = arguments.output(dv.view_mut().buffer(), 0).value(shape);
        let launch = product_launch(OPERATION, &shape, shared)?;
        // SAFETY: the arguments of the kernel in its order; dy, the weights and dv were checked against each other.
        unsafe { cuda.launch(ptx::CONV.into(), "conv_input_grad_f32", launch, &arguments) }?;
    }
    if is_stored(x) { Ok(Pulled { g: dv, sums: None }) } else { pull(cuda, dv.view(), x) }
}

/// [`Backend::conv_weight_grad`](crate::Backend::conv_weight_grad).
pub(crate) fn weight_grad(
    cuda: &Cuda,
    dy: View<'_, Cuda>,
    x: &Operand<'_, Cuda>,
    g: Geometry,
    grads: &mut CudaBuffer,
    dw: Range<usize>,
) -> Result<(), KernelError> {
    const OPERATION: &str = "conv_weight_grad";
    x.check(OPERATION)?;
    let [n, h, width, c] = x.size();
    let o = dy.shape().nhwc()[3];
    let (out_h, out_w) = g.output(h, width)?;
    let size = [n, out_h, out_w, o];
    expect(OPERATION, "dy", size, dy.shape())?;
    let len = g.kernel * g.kernel * c * o;
    expect(OPERATION, "the range of the weight's gradient", [len], Shape::from([dw.len()]))?;
    range_of(grads, &dw)?;
    if len * n * out_h * out_w == 0 {
        return Ok(());
    }
    let (kernel, block_channels) = match g.kernel {
        1 => ("conv_weight_grad_1_f32", 64),
        _ => ("conv_weight_grad_3_f32", 16),
    };
    let taps = (g.kernel, g.stride, g.before(), 1);
    let position = (block_channels + 4) * 4;
    let (shape, shared) = ConvShape::new(OPERATION, size, taps, GRAD_ROWS, GROUP, position, GRAD_ROWS * TILE * 4)?;
    // slices of a group of images, a matter of one image's shape
    let slice_images =
        (SLICE_PIXELS / (out_h * out_w)).max(1).next_power_of_two().min(GROUP).max(shape.tile_images as usize);
    let slices = n.div_ceil(slice_images);
    let loaded = Loaded::new(OPERATION, cuda, x)?;
    let mut partial = cuda.alloc(slices * len)?;
    let arguments = view(Arguments::new(), dy).value(loaded.argument).output(&mut partial, 0);
    let arguments = arguments.value(shape).value(slice_images as u32);
    let grid = [o.div_ceil(TILE) as u32, c.div_ceil(block_channels) as u32, small(OPERATION, slices)?];
    // SAFETY: the arguments of the kernel in its order; operand and dy were checked against each other, and the partial sums
    // have room for every slice.
    unsafe {
        cuda.launch(ptx::CONV.into(), kernel, Launch { grid, block: THREADS, shared: shared as u32 }, &arguments)
    }?;
    let arguments = Arguments::new().input(&partial, 0).output(grads, dw.start).value(len as u64);
    let arguments = arguments.value(slices as u32).value((GROUP / slice_images) as u32);
    // SAFETY: the arguments of the kernel in its order; the range has `len` elements, the partial sums `slices` times as many.
    unsafe { cuda.launch(ptx::CONV.into(), "add_slices_f32", Launch::over(len), &arguments) }?;
    Ok(())
}
