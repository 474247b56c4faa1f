//! Operands on CUDA.

use std::ops::Range;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use ddpm_tensor::cuda::{Arguments, CudaBuffer, Launch};
use ddpm_tensor::{Cuda, Device, Shape, Tensor, View};

use crate::cuda::{per_channel, range_of, small, view, view_or_null};
use crate::error::expect;
use crate::operand::{Norm, Operand, Parts, Pulled};
use crate::{KernelError, ptx};

/// Numbers that a norm comes to for an image and channel (`FIELDS` in `kernels/operand.cuh`).
const FIELDS: usize = 5;

/// `Operand` in `kernels/operand.cuh`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Argument {
    a: u64,
    b: u64,
    coefficients: u64,
    seed: u64,
    step: u64,
    sample: u64,
    purpose: u32,
    probability: f32,
    keep: f32,
    channels_a: u32,
    channels: u32,
    images: u32,
    height: u32,
    width: u32,
    silu: u32,
    enlarge: u32,
}

/// An operand as kernels take it, with the memory that it names besides its views.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) argument: Argument,
    _coefficients: Option<Arc<CudaBuffer>>,
}

impl Loaded {
    pub(crate) fn new(operation: &'static str, cuda: &Cuda, x: &Operand<'_, Cuda>) -> Result<Self, KernelError> {
        let [n, h, w, c] = x.stored();
        let address = |v: View<'_, Cuda>| v.buffer().address(v.range().start);
        let (a, b) = match x.parts {
            Parts::One(a) => (a, None),
            Parts::Two(a, b) => (a, Some(b)),
        };
        let coefficients = x.norm.as_ref().map(|norm| coefficients(cuda, norm, n, c)).transpose()?;
        let dropout = x.dropout.filter(|d| d.probability > 0.0);
        let (probability, at) = dropout.map_or((0.0, None), |d| (d.probability, Some(d.address)));
        let argument = Argument {
            a: address(a),
            b: b.map_or(0, address),
            coefficients: coefficients.as_ref().map_or(0, |k| k.address(0)),
            seed: at.map_or(0, |at| at.seed),
            step: at.map_or(0, |at| at.step),
            sample: at.map_or(0, |at| at.sample),
            purpose: at.map_or(0, |at| at.purpose as u32),
            probability,
            keep: 1.0 / (1.0 - probability),
            channels_a: small(operation, a.shape().nhwc()[3])?,
            channels: small(operation, c)?,
            images: small(operation, n)?,
            height: small(operation, 2 * h)? / 2,
            width: small(operation, 2 * w)? / 2,
            silu: u32::from(x.silu),
            enlarge: if x.nearest_2x { 2 } else { 1 },
        };
        Ok(Self { argument, _coefficients: coefficients })
    }
}

/// The name of a norm's coefficients among what is kept of its statistics, which begin at `first`.
pub(crate) fn key_of_norm(
    first: usize,
    [n, c, groups]: [usize; 3],
    [gamma, beta]: [View<'_, Cuda>; 2],
    scale_shift: Option<View<'_, Cuda>>,
) -> [u64; 10] {
    let place = |v: View<'_, Cuda>| [v.buffer().contents(), v.range().start as u64];
    let ([of_gamma, at_gamma], [of_beta, at_beta]) = (place(gamma), place(beta));
    let [of_scale_shift, at_scale_shift] = scale_shift.map_or([0; 2], place);
    let [first, n, c, groups] = [first, n, c, groups].map(|size| size as u64);
    [of_gamma, at_gamma, of_beta, at_beta, of_scale_shift, at_scale_shift, first, n, c, groups]
}

/// Numbers that a norm comes to, for so many images and channels.
pub(crate) fn room_for_coefficients(cuda: &Cuda, n: usize, c: usize) -> Result<CudaBuffer, KernelError> {
    Ok(cuda.alloc(n * FIELDS * c)?)
}

/// Made once, and kept as long as the norm's statistics: a residual block's operand is loaded four times.
fn coefficients(cuda: &Cuda, norm: &Norm<'_, Cuda>, n: usize, c: usize) -> Result<Arc<CudaBuffer>, KernelError> {
    let sizes = [n, c, norm.groups];
    let key = key_of_norm(norm.statistics.range().start, sizes, [norm.gamma, norm.beta], norm.scale_shift);
    norm.statistics.buffer().kept(&key, || {
        let mut coefficients = room_for_coefficients(cuda, n, c)?;
        let arguments = view(view(view(Arguments::new(), norm.statistics), norm.gamma), norm.beta);
        let arguments = view_or_null(arguments, norm.scale_shift).output(&mut coefficients, 0);
        let arguments = arguments.value(n as u32).value(c as u32).value(norm.groups as u32);
        // SAFETY: the arguments of the kernel in its order; the views were checked against n, c and the groups.
        unsafe { cuda.launch(ptx::OPERAND.into(), "norm_coefficients_f32", Launch::over(n * c), &arguments) }?;
        Ok(coefficients)
    })
}

/// [`Backend::operand_value`](crate::Backend::operand_value).
pub(crate) fn value(cuda: &Cuda, x: &Operand<'_, Cuda>) -> Result<Tensor<Cuda>, KernelError> {
    const OPERATION: &str = "operand_value";
    x.check(OPERATION)?;
    let [n, h, w, c] = x.size();
    let mut y = Tensor::alloc(cuda, [n, h, w, c])?;
    if y.shape().is_empty() {
        return Ok(y);
    }
    let loaded = Loaded::new(OPERATION, cuda, x)?;
    let arguments = Arguments::new().value(loaded.argument).output(y.view_mut().buffer(), 0);
    // SAFETY: the arguments of the kernel in its order; the operand was checked, and y has its size.
    unsafe {
        cuda.launch(ptx::OPERAND.into(), "operand_value_f32", Launch::over(n * h * w * c.div_ceil(4)), &arguments)
    }?;
    Ok(y)
}

/// [`Backend::operand_pull`](crate::Backend::operand_pull).
pub(crate) fn pull(cuda: &Cuda, dv: View<'_, Cuda>, x: &Operand<'_, Cuda>) -> Result<Pulled<Cuda>, KernelError> {
    const OPERATION: &str = "operand_pull";
    x.check(OPERATION)?;
    expect(OPERATION, "the gradient", x.size(), dv.shape())?;
    let [n, h, w, c] = x.stored();
    let mut g = Tensor::alloc(cuda, [n, h, w, c])?;
    let mut sums = if x.norm.is_some() { Some(Tensor::zeros(cuda, [n, c, 2])?) } else { None };
    if g.shape().is_empty() {
        return Ok(Pulled { g, sums });
    }
    let loaded = Loaded::new(OPERATION, cuda, x)?;
    let arguments = view(Arguments::new(), dv).value(loaded.argument).output(g.view_mut().buffer(), 0);
    let arguments = match &mut sums {
        Some(sums) => arguments.output(sums.view_mut().buffer(), 0),
        None => arguments.value(0u64),
    };
    // SAFETY: the arguments of the kernel in its order; dv has the value's size, g the stored one, the sums [N, C, 2].
    unsafe { cuda.launch(ptx::OPERAND.into(), "operand_pull_f32", per_channel(n, c), &arguments) }?;
    Ok(Pulled { g, sums })
}

/// Whether pulling back is nothing: the value is the stored parts.
pub(crate) fn is_stored(x: &Operand<'_, Cuda>) -> bool {
    x.norm.is_none() && !x.silu && x.dropout.is_none() && !x.nearest_2x
}

/// [`Backend::operand_grad`](crate::Backend::operand_grad).
pub(crate) fn grad(
    cuda: &Cuda,
    x: &Operand<'_, Cuda>,
    pulled: Pulled<Cuda>,
    add: [Option<View<'_, Cuda>>; 2],
) -> Result<(Tensor<Cuda>, Option<Tensor<Cuda>>), KernelError> {
    const OPERATION: &str = "operand_grad";
    x.check(OPERATION)?;
    let [n, h, w, c] = x.stored();
    expect(OPERATION, "the pulled gradient", [n, h, w, c], pulled.g.shape())?;
    let channels = match x.parts {
        Parts::One(_) => [c, 0],
        Parts::Two(a, b) => [a.shape().nhwc()[3], b.shape().nhwc()[3]],
    };
    for (add, channels) in add.iter().zip(channels) {
        if let Some(add) = add {
            expect(OPERATION, "the gradient to add", [n, h, w, channels], add.shape())?;
        }
    }
    // a single part without a norm is done already
    if matches!(x.parts, Parts::One(_)) && x.norm.is_none() && add[0].is_none() {
        return Ok((pulled.g, None));
    }
    let two = matches!(x.parts, Parts::Two(..));
    let mut to_a = Tensor::alloc(cuda, [n, h, w, channels[0]])?;
    let mut to_b = if two { Some(Tensor::alloc(cuda, [n, h, w, channels[1]])?) } else { None };
    if pulled.g.shape().is_empty() {
        return Ok((to_a, to_b));
    }
    let loaded = Loaded::new(OPERATION, cuda, x)?;
    let groups = x.norm.as_ref().map_or(1, |norm| norm.groups);
    let means = match (&x.norm, &pulled.sums) {
        (None, _) => None,
        (Some(_), None) => {
            let what = "the pulled gradient of a normalised operand has sums, these are missing".into();
            return Err(KernelError::Setting { operation: OPERATION, what });
        }
        (Some(_), Some(sums)) => {
            expect(OPERATION, "the pulled sums", [n, c, 2], sums.shape())?;
            let mut means = Tensor::alloc(cuda, [n, groups, 2])?;
            let arguments = view(Arguments::new().value(loaded.argument), sums.view());
            let arguments = arguments.output(means.view_mut().buffer(), 0).value(groups as u32);
            // SAFETY: the arguments of the kernel in its order; sums and means have the sizes that it reads and writes.
            unsafe { cuda.launch(ptx::OPERAND.into(), "norm_means_f32", Launch::over(n * groups), &arguments) }?;
            Some(means)
        }
    };
    let arguments = view(Arguments::new(), pulled.g.view()).value(loaded.argument);
    let arguments = view_or_null(arguments, means.as_ref().map(Tensor::view)).value(groups as u32);
    let arguments = view_or_null(view_or_null(arguments, add[0]), add[1]).output(to_a.view_mut().buffer(), 0);
    let arguments = match &mut to_b {
        Some(to_b) => arguments.output(to_b.view_mut().buffer(), 0),
        None => arguments.value(0u64),
    };
    // SAFETY: the arguments of the kernel in its order; g and the parts' gradients have the sizes of the stored parts.
    unsafe { cuda.launch(ptx::OPERAND.into(), "operand_grad_f32", Launch::over(n * h * w * c), &arguments) }?;
    Ok((to_a, to_b))
}

/// [`Backend::norm_param_grad`](crate::Backend::norm_param_grad).
pub(crate) fn norm_param_grad(
    cuda: &Cuda,
    x: &Operand<'_, Cuda>,
    sums: View<'_, Cuda>,
    grads: &mut CudaBuffer,
    d_gamma: Range<usize>,
    d_beta: Range<usize>,
) -> Result<Option<Tensor<Cuda>>, KernelError> {
    const OPERATION: &str = "norm_param_grad";
    x.check(OPERATION)?;
    let [n, _, _, c] = x.stored();
    expect(OPERATION, "the sums", [n, c, 2], sums.shape())?;
    let Some(norm) = &x.norm else {
        return Err(KernelError::Setting { operation: OPERATION, what: "the operand has no norm".into() });
    };
    expect(OPERATION, "the range of gamma's gradient", [c], Shape::from([d_gamma.len()]))?;
    expect(OPERATION, "the range of beta's gradient", [c], Shape::from([d_beta.len()]))?;
    range_of(grads, &d_gamma)?;
    range_of(grads, &d_beta)?;
    let mut d_scale_shift = norm.scale_shift.map(|s| Tensor::alloc(cuda, s.shape())).transpose()?;
    if n * c == 0 {
        return Ok(d_scale_shift);
    }
    let arguments = view_or_null(view(view(view(Arguments::new(), sums), norm.gamma), norm.beta), norm.scale_shift);
    let arguments = arguments.output(grads, d_gamma.start).output(grads, d_beta.start);
    let arguments = match &mut d_scale_shift {
        Some(d) => arguments.output(d.view_mut().buffer(), 0),
        None => arguments.value(0u64),
    };
    let arguments = arguments.value(small(OPERATION, n)?).value(small(OPERATION, c)?);
    let launch = Launch { grid: [c.div_ceil(64) as u32, 1, 1], block: 64, shared: 0 };
    // SAFETY: the arguments of the kernel in its order; all sizes were checked against [N, C].
    unsafe { cuda.launch(ptx::OPERAND.into(), "norm_param_grad_f32", launch, &arguments) }?;
    Ok(d_scale_shift)
}
