//! Convolutions on CUDA: by multiply-adds of f32, or on tensor cores; tiles of the result are chosen here, by the shape alone.

mod backward;
mod pack;
mod strict;
mod tensor;

pub(crate) use backward::{Seen, backward, parameter_grads};

use std::ops::Range;

use bytemuck::Pod;
use ddpm_tensor::cuda::{Arguments, CudaBuffer, Launch};
use ddpm_tensor::{Cuda, Device, Shape, Tensor, View};

use self::tensor::Product;
use super::Geometry;
use crate::cuda::{Numbers, numbers, range_of, small, view};
use crate::error::expect;
use crate::operand::cuda::{Loaded, is_stored, pull};
use crate::ptx::Module;
use crate::sums::GROUP;
use crate::sums::addends::Addends;
use crate::{Epilogue, KernelError, Operand, Output, Pulled, statistics};

/// Shared memory that every GPU gives a block.
const SHARED_BYTES: usize = 48 * 1024;
/// Pixels that a slice of the weights' gradient sums, where a group of images has as many.
const SLICE_PIXELS: usize = 4096;

/// Products of so few channels are a small part of a network, and rounding is a large part of their error.
const ROUNDED_FROM: usize = 16;

/// How a product from `c` channels to `o`, and its gradients, see numbers.
fn numbers_of(cuda: &Cuda, c: usize, o: usize) -> Option<Numbers> {
    let few = c.min(o) < ROUNDED_FROM;
    numbers(cuda).map(|numbers| if few { Numbers::Split } else { numbers })
}

/// What of the operand a result reads: `kernel`² pixels from `stride` times its own − `before` on; the operand has
/// `dilate` − 1 zeros between its pixels.
#[derive(Debug, Clone, Copy)]
struct Taps {
    kernel: usize,
    stride: usize,
    before: usize,
    dilate: usize,
}

impl Taps {
    fn of(g: Geometry) -> Self {
        Self { kernel: g.kernel, stride: g.stride, before: g.before(), dilate: 1 }
    }

    /// Those of the input's gradient, whose operand is dy and whose weights are flipped.
    fn turned(g: Geometry) -> Self {
        Self { kernel: g.kernel, stride: 1, before: g.kernel - 1 - g.before(), dilate: g.stride }
    }

    /// Pixels of the operand along a side that `results` pixels read.
    fn halo(self, results: usize) -> usize {
        (results - 1) * self.stride + self.kernel
    }
}

/// Images, height and width of a tile of at most `rows` results of images of `h` by `w`, all powers of two, the largest
/// that `fits`.
fn tile_sides([h, w]: [usize; 2], rows: usize, most_images: usize, fits: impl Fn([usize; 3]) -> bool) -> [usize; 3] {
    let height = h.next_power_of_two().min(8);
    let width = w.next_power_of_two().min(rows / height);
    let height = h.next_power_of_two().min(rows / width);
    let mut sides = [(rows / width / height).min(most_images), height, width];
    // tiny images under a large kernel have more halo than image: fewer rows then
    while !fits(sides) {
        let [images, height, _] = &mut sides;
        *if *images > 1 { images } else { height } /= 2;
    }
    sides
}

/// Images of a slice of the weights' gradient: a matter of one image's shape.
fn slice_images(pixels: usize, tile_images: usize) -> usize {
    (SLICE_PIXELS / pixels).max(1).next_power_of_two().min(GROUP).max(tile_images)
}

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
        match numbers_of(cuda, c, o) {
            None => strict::conv(cuda, x, w, Taps::of(g), e, &mut y)?,
            Some(numbers) => {
                let taps = Taps::of(g);
                Product { operation: OPERATION, numbers, x, w, turned: false, taps, size }.store(cuda, e, &mut y)?;
            }
        }
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
        let dy = Operand::plain(dy.reshape([n, out_h, out_w, o])?);
        let taps = Taps::turned(g);
        match numbers_of(cuda, c, o) {
            None => strict::input_grad(cuda, &dy, w, taps, size, dv.view_mut().buffer(), 0)?,
            Some(numbers) => {
                let product = Product { operation: OPERATION, numbers, x: &dy, w, turned: true, taps, size };
                product.store(cuda, &Epilogue::default(), &mut dv)?;
            }
        }
    }
    if is_stored(x) { Ok(Pulled { g: dv, sums: None }) } else { pull(cuda, dv.view(), x) }
}

/// Threads of a block of the kernels below.
const GRAD_THREADS: u32 = 128;

/// A kernel that sums slices of images, and what its blocks take; `shape` is its own type of argument.
struct GradKernel<S> {
    module: Module,
    name: &'static str,
    /// Channels of dy and of the operand that a block has.
    block: [usize; 2],
    shape: S,
    tile_images: usize,
    shared: usize,
}

/// Sums of slices of images, `[slices, taps, C, O]`.
struct Slices {
    partial: CudaBuffer,
    count: usize,
    /// Images of each.
    images: usize,
}

impl Slices {
    /// Adds them to a range of gradients.
    fn push<'a>(&'a self, addends: &mut Addends<'a>, dw: &Range<usize>) {
        addends.slices(&self.partial, self.count, GROUP / self.images, dw);
    }

    /// The gradient of the weights, slice by slice, all sizes checked.
    fn of<S: Pod>(
        cuda: &Cuda,
        dy: View<'_, Cuda>,
        x: &Operand<'_, Cuda>,
        taps: Taps,
        kernel: &GradKernel<S>,
    ) -> Result<Self, KernelError> {
        const OPERATION: &str = "conv_weight_grad";
        let [n, h, w, o] = dy.shape().nhwc();
        let c = x.size()[3];
        let images = slice_images(h * w, kernel.tile_images);
        let count = n.div_ceil(images);
        let loaded = Loaded::new(OPERATION, cuda, x)?;
        let mut partial = cuda.alloc(count * taps.kernel * taps.kernel * c * o)?;
        let arguments = view(Arguments::new(), dy).value(loaded.argument).output(&mut partial, 0);
        let arguments = arguments.value(kernel.shape).value(images as u32);
        let [columns, channels] = kernel.block;
        let grid = [o.div_ceil(columns) as u32, c.div_ceil(channels) as u32, small(OPERATION, count)?];
        let launch = Launch { grid, block: GRAD_THREADS, shared: kernel.shared as u32 };
        // SAFETY: these kernels take dy, operand, partial sums, their own shape and the images of a slice, in this order; operand
        // and dy were checked against each other, and the partial sums have room for every slice.
        unsafe { cuda.launch(kernel.module.into(), kernel.name, launch, &arguments) }?;
        Ok(Self { partial, count, images })
    }
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
    let Some(slices) = weight_slices(cuda, dy, x, g, grads, &dw)? else { return Ok(()) };
    let mut addends = Addends::default();
    slices.push(&mut addends, &dw);
    addends.add(cuda, grads)
}

/// Sums of slices of images for the gradient of the weights, which are to be added to a range; none if there is nothing to sum.
fn weight_slices(
    cuda: &Cuda,
    dy: View<'_, Cuda>,
    x: &Operand<'_, Cuda>,
    g: Geometry,
    grads: &CudaBuffer,
    dw: &Range<usize>,
) -> Result<Option<Slices>, KernelError> {
    const OPERATION: &str = "conv_weight_grad";
    x.check(OPERATION)?;
    let [n, h, width, c] = x.size();
    let o = dy.shape().nhwc()[3];
    let (out_h, out_w) = g.output(h, width)?;
    expect(OPERATION, "dy", [n, out_h, out_w, o], dy.shape())?;
    let len = g.kernel * g.kernel * c * o;
    expect(OPERATION, "the range of the weight's gradient", [len], Shape::from([dw.len()]))?;
    range_of(grads, dw)?;
    if len * n * out_h * out_w == 0 {
        return Ok(None);
    }
    Ok(Some(match numbers_of(cuda, c, o) {
        None => strict::weight_grad(cuda, dy, x, Taps::of(g))?,
        Some(numbers) => tensor::weight_grad(cuda, numbers, dy, x, Taps::of(g))?,
    }))
}
