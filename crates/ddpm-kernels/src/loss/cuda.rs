//! Losses on CUDA.

use ddpm_tensor::cuda::{Arguments, Launch};
use ddpm_tensor::{Cuda, Device, Tensor, View};

use super::{LossGrad, LossKind, check};
use crate::cuda::{small, view};
use crate::{KernelError, ptx};

/// Elements of one image that a block sums (`CHUNK` in `kernels/loss.cu`), and its threads.
const CHUNK: usize = 4096;
const THREADS: u32 = 256;

/// [`Backend::loss`](crate::Backend::loss).
pub(crate) fn loss(
    cuda: &Cuda,
    kind: LossKind,
    output: View<'_, Cuda>,
    target: View<'_, Cuda>,
    weights: &[f32],
    scale: f64,
) -> Result<LossGrad<Cuda>, KernelError> {
    let [n, h, w, c] = output.shape().nhwc();
    check(kind, output.shape(), target.shape(), weights)?;
    let size = h * w * c;
    let chunks = size.div_ceil(CHUNK);
    let mut d_output = Tensor::alloc(cuda, output.shape())?;
    let mut sums = vec![[0.0f64; 2]; n * chunks];
    if n * size > 0 {
        let (number, twice, delta) = match kind {
            LossKind::L2 => (0u32, 2.0, 0.0),
            LossKind::L1 => (1, 1.0, 0.0),
            LossKind::Huber { delta } => (2, 1.0, delta),
        };
        let factors: Vec<f32> = weights.iter().map(|&w| (twice * (w as f64 * scale)) as f32).collect();
        let factors = cuda.upload_values(&factors)?;
        let mut on_device = cuda.alloc(4 * sums.len())?;
        let arguments = view(view(Arguments::new(), output), target).input(&factors, 0);
        let arguments = arguments.output(d_output.view_mut().buffer(), 0).output(&mut on_device, 0);
        let arguments = arguments.value(n as u64).value(size as u64).value(number).value(delta);
        let grid = [small("loss", chunks)?, n.min(65535) as u32, 1];
        // SAFETY: the arguments of the kernel in its order; all tensors have n · size elements, the sums two f64 for each
        // image and chunk, the factors one for each image.
        unsafe { cuda.launch(ptx::LOSS.into(), "loss_f32", Launch { grid, block: THREADS, shared: 0 }, &arguments) }?;
        sums = cuda.download_values(&on_device, sums.len())?;
    }
    let mean = |which: usize| {
        let of_image = |i: usize| sums[i * chunks..(i + 1) * chunks].iter().map(|s| s[which]).sum::<f64>();
        (0..n).map(|i| of_image(i) / size as f64).collect()
    };
    Ok(LossGrad { loss: mean(0), mse: mean(1), d_output })
}
