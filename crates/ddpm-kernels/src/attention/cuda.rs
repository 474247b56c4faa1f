//! Attention on CUDA; see `kernels/attention.cuh`.

use bytemuck::{Pod, Zeroable};
use ddpm_tensor::cuda::{Arguments, Launch};
use ddpm_tensor::{Cuda, Device, Tensor, View};

use crate::KernelError;
use crate::cuda::{numbers, small, view};
use crate::error::expect;
use crate::ptx::{self, Module};

/// Rows and columns of a tile, and threads of a block (`kernels/attention.cuh`).
const TILE: usize = 64;
const THREADS: u32 = 128;

/// The kernels of one way to multiply.
struct Kernels {
    module: Module,
    statistics: &'static str,
    grad_statistics: &'static str,
    o: &'static str,
    dv: &'static str,
    dq: &'static str,
    dk: &'static str,
}

const MULTIPLY_ADDS: Kernels = Kernels {
    module: ptx::ATTENTION,
    statistics: "attention_statistics_f32",
    grad_statistics: "attention_grad_statistics_f32",
    o: "attention_f32",
    dv: "attention_dv_f32",
    dq: "attention_dq_f32",
    dk: "attention_dk_f32",
};

/// On tensor cores numbers are split, in `bf16` too: there only convolutions and dense layers round them.
const SPLIT: Kernels = Kernels {
    module: ptx::ATTENTION_TENSOR,
    statistics: "attention_statistics_split",
    grad_statistics: "attention_grad_statistics_split",
    o: "attention_split",
    dv: "attention_dv_split",
    dq: "attention_dq_split",
    dk: "attention_dk_split",
};

impl Kernels {
    fn of(cuda: &Cuda) -> &'static Self {
        if numbers(cuda).is_some() { &SPLIT } else { &MULTIPLY_ADDS }
    }
}

/// `Heads` in `kernels/attention.cuh`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Heads {
    pixels: u32,
    heads: u32,
    size: u32,
}

/// What is launched, or nothing if there is nothing to compute.
struct Plan {
    heads: Heads,
    /// Blocks for tiles of rows of all heads.
    rows: Launch,
    /// The same for each 64 columns of a head.
    tiles: Launch,
    /// Numbers that are left of each query of each head, three times.
    statistics: usize,
}

fn plan(
    operation: &'static str,
    q: View<'_, Cuda>,
    others: &[(&'static str, View<'_, Cuda>)],
    heads: usize,
) -> Result<Option<Plan>, KernelError> {
    for &(operand, view) in others {
        expect(operation, operand, q.shape(), view.shape())?;
    }
    let [images, h, w, channels] = q.shape().nhwc();
    if heads == 0 || !channels.is_multiple_of(heads) {
        let what = format!("{channels} channels cannot be shared among {heads} heads");
        return Err(KernelError::Setting { operation, what });
    }
    if q.shape().is_empty() {
        return Ok(None);
    }
    let (pixels, size) = (h * w, channels / heads);
    let blocks = small(operation, images * heads * pixels.div_ceil(TILE))?;
    let launch = |columns: u32| Launch { grid: [blocks, columns, 1], block: THREADS, shared: 0 };
    Ok(Some(Plan {
        heads: Heads {
            pixels: small(operation, pixels)?,
            heads: small(operation, heads)?,
            size: small(operation, size)?,
        },
        rows: launch(1),
        tiles: launch(size.div_ceil(TILE) as u32),
        statistics: 3 * images * heads * pixels,
    }))
}

/// [`Backend::attention`](crate::Backend::attention).
pub(crate) fn attention(
    cuda: &Cuda,
    q: View<'_, Cuda>,
    k: View<'_, Cuda>,
    v: View<'_, Cuda>,
    heads: usize,
    scale: f32,
) -> Result<Tensor<Cuda>, KernelError> {
    let plan = plan("attention", q, &[("k", k), ("v", v)], heads)?;
    let mut o = Tensor::alloc(cuda, q.shape())?;
    let Some(plan) = plan else { return Ok(o) };
    let kernels = Kernels::of(cuda);
    let mut statistics = cuda.alloc(plan.statistics)?;
    let arguments = view(view(Arguments::new(), q), k).output(&mut statistics, 0).value(plan.heads).value(scale);
    // SAFETY: the arguments of the kernel in its order; q and k have one shape, and each query has its three numbers.
    unsafe { cuda.launch(kernels.module.into(), kernels.statistics, plan.rows, &arguments) }?;
    let arguments = view(view(view(Arguments::new(), q), k), v).input(&statistics, 0);
    let arguments = arguments.output(o.view_mut().buffer(), 0).value(plan.heads).value(scale);
    // SAFETY: as above, for o too.
    unsafe { cuda.launch(kernels.module.into(), kernels.o, plan.tiles, &arguments) }?;
    Ok(o)
}

/// [`Backend::attention_grad`](crate::Backend::attention_grad).
pub(crate) fn attention_grad(
    cuda: &Cuda,
    q: View<'_, Cuda>,
    k: View<'_, Cuda>,
    v: View<'_, Cuda>,
    d_o: View<'_, Cuda>,
    heads: usize,
    scale: f32,
) -> Result<[Tensor<Cuda>; 3], KernelError> {
    let plan = plan("attention_grad", q, &[("k", k), ("v", v), ("the output's gradient", d_o)], heads)?;
    let shape = q.shape();
    let [mut dq, mut dk, mut dv] =
        [Tensor::alloc(cuda, shape)?, Tensor::alloc(cuda, shape)?, Tensor::alloc(cuda, shape)?];
    let Some(plan) = plan else { return Ok([dq, dk, dv]) };
    let kernels = Kernels::of(cuda);
    let mut statistics = cuda.alloc(plan.statistics)?;
    let inputs = || view(view(view(view(Arguments::new(), q), k), v), d_o);
    let end = |arguments: Arguments| arguments.value(plan.heads).value(scale);
    let launch = |kernel, launch, arguments: Arguments| {
        // SAFETY: the calls below give the kernels' arguments in their order; all tensors have one shape, and each query
        // has its three numbers.
        unsafe { cuda.launch(kernels.module.into(), kernel, launch, &arguments) }
    };
    launch(kernels.grad_statistics, plan.rows, end(inputs().output(&mut statistics, 0)))?;
    for (kernel, to) in [(kernels.dq, &mut dq), (kernels.dk, &mut dk)] {
        launch(kernel, plan.tiles, end(inputs().input(&statistics, 0).output(to.view_mut().buffer(), 0)))?;
    }
    let arguments = view(view(view(Arguments::new(), q), k), d_o).input(&statistics, 0);
    launch(kernels.dv, plan.tiles, end(arguments.output(dv.view_mut().buffer(), 0)))?;
    Ok([dq, dk, dv])
}
