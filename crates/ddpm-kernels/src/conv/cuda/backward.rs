//! The whole way back from convolutions in as few launches as there are products in it, and two.

use std::ops::Range;

use ddpm_tensor::cuda::{Arguments, CudaBuffer, Launch};
use ddpm_tensor::{Cuda, Device, Shape, Tensor, View};

use super::tensor::Product;
use super::{Geometry, Taps, numbers_of, strict, weight_slices};
use crate::conv::backward::{Along, ConvGrad, OperandGrad, ParameterGrads};
use crate::cuda::{range_of, small, view_or_null};
use crate::error::expect;
use crate::operand::cuda::{Loaded, is_stored, norm_param_grad};
use crate::sums::addends::Addends;
use crate::sums::cuda::pixel_sums;
use crate::{Epilogue, KernelError, Operand, Parts, ptx};

const OPERATION: &str = "conv_backward";
/// Threads and channels of a block of `operand_backward_f32` (`kernels/operand.cu`).
const THREADS: u32 = 256;
const CHANNELS: usize = 32;

/// [`Backend::conv_backward`](crate::Backend::conv_backward).
pub(crate) fn backward(
    cuda: &Cuda,
    products: &[ConvGrad<'_, Cuda>],
    g: Geometry,
    x: &Operand<'_, Cuda>,
    along: Along<Cuda>,
    grads: Option<ParameterGrads<'_, Cuda>>,
    sums: bool,
) -> Result<OperandGrad<Cuda>, KernelError> {
    x.check(OPERATION)?;
    let (mut grad, pairs) = ValueGrad::new(cuda, products, g, x)?.into_parts(cuda, x, &along, sums)?;
    drop(along);
    if let Some(ParameterGrads { buffer, norm }) = grads {
        let norm = norm.zip(pairs.as_ref().map(Tensor::view));
        let of = |p: &ConvGrad<'_, Cuda>| (p.dw.clone(), p.db.clone());
        let seen: Vec<_> = products.iter().map(|p| (Seen { dy: p.dy, dy_sums: p.dy_sums }, of(p))).collect();
        grad.scale_shift = parameter_grads(cuda, &seen, g, x, norm, buffer)?;
    }
    Ok(grad)
}

/// The gradient of a result, and its sums over pixels, where they are known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) dy: View<'a, Cuda>,
    pub(crate) dy_sums: Option<View<'a, Cuda>>,
}

/// Where gradients of weights and of the bias, if any, are added.
type Ranges = (Range<usize>, Option<Range<usize>>);

/// Gradients of weights and biases, and of the operand's norm from its ranges and the sums over pixels of dn and dn·x̂, `[N, C, 2]`:
/// a launch for each product, and one for all sums over images. That of scale and shift, where the norm has them.
pub(crate) fn parameter_grads(
    cuda: &Cuda,
    products: &[(Seen<'_>, Ranges)],
    g: Geometry,
    x: &Operand<'_, Cuda>,
    norm: Option<([Range<usize>; 2], View<'_, Cuda>)>,
    grads: &mut CudaBuffer,
) -> Result<Option<Tensor<Cuda>>, KernelError> {
    let [images, _, _, c] = x.stored();
    let mut slices = Vec::new();
    let mut own_sums = Vec::new();
    for (p, (dw, db)) in products {
        slices.push(weight_slices(cuda, p.dy, x, g, grads, dw)?);
        let own = db.is_some() && p.dy_sums.is_none();
        own_sums.push(if own { Some(pixel_sums(cuda, p.dy)?) } else { None });
    }
    let mut addends = Addends::default();
    for (((p, (dw, db)), slices), own) in products.iter().zip(&slices).zip(&own_sums) {
        if let Some(slices) = slices {
            slices.push(&mut addends, dw);
        }
        let rows = p.dy_sums.or(own.as_ref().map(Tensor::view));
        if let (Some(db), Some(rows)) = (db, rows) {
            let o = p.dy.shape().nhwc()[3];
            expect(OPERATION, "dy's sums over pixels", [images, o], rows.shape())?;
            expect(OPERATION, "the range of the bias's gradient", [o], [db.len()].into())?;
            range_of(grads, db)?;
            addends.rows(rows, images, db);
        }
    }
    let mut scale_shift = None;
    if let Some(([d_gamma, d_beta], pairs)) = norm {
        if x.norm.as_ref().is_some_and(|norm| norm.scale_shift.is_some()) {
            scale_shift = norm_param_grad(cuda, x, pairs, grads, d_gamma, d_beta)?;
        } else {
            for (which, range) in [d_beta, d_gamma].into_iter().enumerate() {
                expect(OPERATION, "the range of gamma's or beta's gradient", [c], [range.len()].into())?;
                range_of(grads, &range)?;
                addends.of_pairs(pairs, which, images, &range);
            }
        }
    }
    addends.add(cuda, grads)?;
    Ok(scale_shift)
}

/// The gradient of an operand's value, in parts that are to be added: `[parts, N, H, W, C]`.
struct ValueGrad {
    parts: usize,
    buffer: CudaBuffer,
}

impl ValueGrad {
    fn new(
        cuda: &Cuda,
        products: &[ConvGrad<'_, Cuda>],
        g: Geometry,
        x: &Operand<'_, Cuda>,
    ) -> Result<Self, KernelError> {
        let size @ [n, h, width, c] = x.size();
        let (out_h, out_w) = g.output(h, width)?;
        let mut dys = Vec::new();
        for p in products {
            let o = p.w.shape().nhwc()[3];
            expect(OPERATION, "the weight", [g.kernel, g.kernel, c, o], p.w.shape())?;
            expect(OPERATION, "dy", [n, out_h, out_w, o], p.dy.shape())?;
            dys.push(Operand::plain(p.dy.reshape([n, out_h, out_w, o])?));
        }
        let taps = Taps::turned(g);
        let mut all = Vec::new();
        for (x, p) in dys.iter().zip(products) {
            let numbers = numbers_of(cuda, c, x.size()[3]);
            let of = |numbers| Product { operation: OPERATION, numbers, x, w: p.w, turned: true, taps, size };
            all.push(numbers.map(of));
        }
        let parts_of = |product: &Option<Product<'_>>| product.as_ref().map_or(1, Product::parts);
        let (parts, len) = (all.iter().map(parts_of).sum(), size.iter().product::<usize>());
        let mut buffer = cuda.alloc(parts * len)?;
        let mut first = 0;
        for ((product, dy), p) in all.iter().zip(&dys).zip(products).filter(|_| len > 0) {
            match product {
                None => strict::input_grad(cuda, dy, p.w, taps, size, &mut buffer, first * len)?,
                Some(product) => product.launch(cuda, &Epilogue::default(), &mut buffer, first * len)?,
            }
            first += parts_of(product);
        }
        Ok(Self { parts, buffer })
    }

    /// The gradients of the operand's stored parts, and with a norm the sums over pixels of dn and dn·x̂, `[N, C, 2]`.
    fn into_parts(
        self,
        cuda: &Cuda,
        x: &Operand<'_, Cuda>,
        along: &Along<Cuda>,
        sums: bool,
    ) -> Result<(OperandGrad<Cuda>, Option<Tensor<Cuda>>), KernelError> {
        let size @ [n, h, w, c] = x.stored();
        let (channels, two) = match x.parts {
            Parts::One(_) => ([c, 0], false),
            Parts::Two(a, b) => ([a.shape().nhwc()[3], b.shape().nhwc()[3]], true),
        };
        if let Some(whole) = &along.whole {
            expect(OPERATION, "the gradient along the shortcut", size, whole.shape())?;
        }
        if let Some(first) = &along.first {
            expect(OPERATION, "the gradient to add", [n, h, w, channels[0]], first.shape())?;
        }
        let grad = |first, second, first_sums| OperandGrad { first, second, first_sums, scale_shift: None };
        let nothing_to_add = along.whole.is_none() && along.first.is_none();
        if is_stored(x) && !two && self.parts == 1 && nothing_to_add {
            let first = Tensor::from_buffer(self.buffer, size)?;
            let sums = if sums { Some(pixel_sums(cuda, first.view())?) } else { None };
            return Ok((grad(first, None, sums), None));
        }
        let mut first = Tensor::alloc(cuda, [n, h, w, channels[0]])?;
        let mut second = if two { Some(Tensor::alloc(cuda, [n, h, w, channels[1]])?) } else { None };
        let has_pixels = n * h * w * c > 0;
        let room = |size: Shape| if has_pixels { Tensor::alloc(cuda, size) } else { Tensor::zeros(cuda, size) };
        let mut pairs = if x.norm.is_some() { Some(room([n, c, 2].into())?) } else { None };
        let mut first_sums = if sums { Some(room([n, channels[0]].into())?) } else { None };
        if has_pixels {
            let loaded = Loaded::new(OPERATION, cuda, x)?;
            let groups = x.norm.as_ref().map_or(1, |norm| norm.groups);
            let arguments = Arguments::new().input(&self.buffer, 0).value(small(OPERATION, self.parts)?);
            let arguments = arguments.value(loaded.argument).value(groups as u32);
            let arguments = view_or_null(arguments, along.whole.as_ref().map(Tensor::view));
            let arguments = view_or_null(arguments, along.first.as_ref().map(Tensor::view));
            let arguments = arguments.output(first.view_mut().buffer(), 0);
            let arguments = output_or_null(arguments, &mut second);
            let arguments = output_or_null(output_or_null(arguments, &mut pairs), &mut first_sums);
            let of = x.norm.as_ref().map_or(1, |norm| c / norm.groups);
            let span = if of > CHANNELS { of } else { CHANNELS / of * of };
            let grid = [small(OPERATION, c.div_ceil(span))?, n.min(65535) as u32, 1];
            let launch = Launch { grid, block: THREADS, shared: 0 };
            // SAFETY: the arguments of the kernel in its order; each part has the value's size, what is added and what is stored
            // that of the stored parts; the sums have their numbers for each image.
            unsafe { cuda.launch(ptx::OPERAND.into(), "operand_backward_f32", launch, &arguments) }?;
        }
        Ok((grad(first, second, first_sums), pairs))
    }
}

fn output_or_null(arguments: Arguments, to: &mut Option<Tensor<Cuda>>) -> Arguments {
    match to {
        Some(to) => arguments.output(to.view_mut().buffer(), 0),
        None => arguments.value(0u64),
    }
}
