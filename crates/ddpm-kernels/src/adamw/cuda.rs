//! AdamW, EMA and the gradients' norm on CUDA.

use ddpm_tensor::cuda::{Arguments, CudaBuffer, Launch};
use ddpm_tensor::{Cuda, Device};

use super::AdamWStep;
use super::cpu::Coefficients;
use crate::cuda::small;
use crate::error::expect;
use crate::{KernelError, ptx};

/// Elements whose squares a block sums (`CHUNK` in `kernels/adamw.cu`), and its threads.
const CHUNK: usize = 32_768;
const THREADS: u32 = 256;

/// [`Backend::squared_norm`](crate::Backend::squared_norm).
pub(crate) fn squared_norm(cuda: &Cuda, x: &CudaBuffer) -> Result<f64, KernelError> {
    let len = Cuda::len(x);
    if len == 0 {
        return Ok(0.0);
    }
    let chunks = len.div_ceil(CHUNK);
    let mut sums = cuda.alloc(2 * chunks)?;
    let arguments = Arguments::new().input(x, 0).output(&mut sums, 0).value(len as u64);
    let launch = Launch { grid: [small("squared_norm", chunks)?, 1, 1], block: THREADS, shared: 0 };
    // SAFETY: the arguments of the kernel in its order; the sums have one f64 for each chunk.
    unsafe { cuda.launch(ptx::ADAMW.into(), "squared_norm_f32", launch, &arguments) }?;
    let sums: Vec<f64> = cuda.download_values(&sums, chunks)?;
    Ok(sums.iter().fold(0.0, |sum, s| sum + s))
}

/// [`Backend::adamw`](crate::Backend::adamw).
pub(crate) fn adamw(
    cuda: &Cuda,
    step: &AdamWStep,
    parameters: &mut CudaBuffer,
    grads: &mut CudaBuffer,
    m: &mut CudaBuffer,
    v: &mut CudaBuffer,
    ema: &mut CudaBuffer,
) -> Result<(), KernelError> {
    let len = Cuda::len(parameters);
    for (operand, got) in [("grads", &*grads), ("m", &*m), ("v", &*v), ("ema", &*ema)] {
        expect("adamw", operand, [len], [Cuda::len(got)].into())?;
    }
    if len == 0 {
        return Ok(());
    }
    let arguments = Arguments::new().value(Coefficients::<f32>::from(step).fields());
    let arguments = [parameters, grads, m, v, ema].into_iter().fold(arguments, |a, buffer| a.output(buffer, 0));
    // SAFETY: the arguments of the kernel in its order; all buffers have `len` elements and are different ones.
    unsafe {
        cuda.launch(ptx::ADAMW.into(), "adamw_f32", Launch::over(len.div_ceil(4)), &arguments.value(len as u64))
    }?;
    Ok(())
}
