//! Statistics on CUDA.

use ddpm_tensor::cuda::{Arguments, Launch};
use ddpm_tensor::{Cuda, Tensor, View};

use crate::cuda::{per_channel, small, view, view_or_null};
use crate::error::expect;
use crate::{KernelError, ptx};

/// [`Backend::channel_statistics`](crate::Backend::channel_statistics).
pub(crate) fn channels(cuda: &Cuda, x: View<'_, Cuda>) -> Result<Tensor<Cuda>, KernelError> {
    const OPERATION: &str = "channel_statistics";
    let [n, h, w, c] = x.shape().nhwc();
    let mut y = Tensor::zeros(cuda, [n, c, 2])?;
    if x.shape().is_empty() {
        return Ok(y);
    }
    let arguments = view(Arguments::new(), x).output(y.view_mut().buffer(), 0);
    let arguments = arguments.value(small(OPERATION, n)?).value(small(OPERATION, h * w)?).value(small(OPERATION, c)?);
    // SAFETY: the arguments of the kernel in its order; y is [N, C, 2].
    unsafe { cuda.launch(ptx::STATISTICS.into(), "channel_statistics_f32", per_channel(n, c), &arguments) }?;
    Ok(y)
}

/// [`Backend::norm_statistics`](crate::Backend::norm_statistics).
pub(crate) fn norm(
    cuda: &Cuda,
    parts: [Option<View<'_, Cuda>>; 2],
    pixels: usize,
    groups: usize,
    eps: f64,
) -> Result<Tensor<Cuda>, KernelError> {
    const OPERATION: &str = "norm_statistics";
    let mut parts = parts.into_iter().flatten();
    let parts = [parts.next(), parts.next()];
    let sizes = parts.map(|part| part.map_or(0, |p| *p.shape().dims().get(1).unwrap_or(&0)));
    let c = sizes[0] + sizes[1];
    let n = parts[0].map_or(0, |p| p.shape().dims()[0]);
    for (part, size) in parts.iter().zip(sizes) {
        if let Some(part) = part {
            expect(OPERATION, "the channels' statistics", [n, size, 2], part.shape())?;
        }
    }
    if groups == 0 || c == 0 || !c.is_multiple_of(groups) || pixels == 0 {
        let what = format!("{c} channels of {pixels} pixels cannot be normalised in {groups} groups");
        return Err(KernelError::Setting { operation: OPERATION, what });
    }
    let mut y = Tensor::alloc(cuda, [n, groups, 2])?;
    if n == 0 {
        return Ok(y);
    }
    let arguments = view_or_null(view_or_null(Arguments::new(), parts[0]), parts[1]).output(y.view_mut().buffer(), 0);
    let arguments = arguments.value(small(OPERATION, n)?).value(small(OPERATION, sizes[0])?);
    let arguments = arguments.value(small(OPERATION, sizes[1])?).value(groups as u32).value(pixels as u64).value(eps);
    // SAFETY: the arguments of the kernel in its order; the parts' sizes were checked.
    unsafe { cuda.launch(ptx::STATISTICS.into(), "norm_statistics_f32", Launch::over(n * groups), &arguments) }?;
    Ok(y)
}
