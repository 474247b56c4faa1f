//! Statistics on CUDA.

use ddpm_tensor::cuda::{Arguments, Launch};
use ddpm_tensor::{Cuda, Tensor, View};

use crate::cuda::{per_channel, small, view, view_or_null};
use crate::error::expect;
use crate::operand::NormParameters;
use crate::operand::cuda::{key_of_norm, room_for_coefficients};
use crate::{KernelError, ptx};

/// Threads of a block, which takes the groups and channels of an image.
const THREADS: u32 = 128;

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
    norm: Option<&NormParameters<'_, Cuda>>,
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
    if let Some(norm) = norm {
        norm.check(OPERATION, n, c)?;
    }
    let mut y = Tensor::alloc(cuda, [n, groups, 2])?;
    if n == 0 {
        return Ok(y);
    }
    let mut coefficients = norm.map(|_| room_for_coefficients(cuda, n, c)).transpose()?;
    let arguments = view_or_null(view_or_null(Arguments::new(), parts[0]), parts[1]).output(y.view_mut().buffer(), 0);
    let arguments = arguments.value(small(OPERATION, n)?).value(small(OPERATION, sizes[0])?);
    let arguments = arguments.value(small(OPERATION, sizes[1])?).value(groups as u32).value(pixels as u64).value(eps);
    let arguments = view_or_null(arguments, norm.map(|norm| norm.gamma));
    let arguments = view_or_null(arguments, norm.map(|norm| norm.beta));
    let arguments = view_or_null(arguments, norm.and_then(|norm| norm.scale_shift));
    let arguments = match &mut coefficients {
        Some(coefficients) => arguments.output(coefficients, 0),
        None => arguments.value(0u64),
    };
    let launch = Launch { grid: [n.min(65535) as u32, 1, 1], block: THREADS, shared: 0 };
    // SAFETY: the arguments of the kernel in its order; the parts' sizes and the norm's were checked, and the coefficients have
    // room.
    unsafe { cuda.launch(ptx::STATISTICS.into(), "norm_statistics_f32", launch, &arguments) }?;
    if let (Some(norm), Some(coefficients)) = (norm, coefficients) {
        let key = key_of_norm(0, [n, c, groups], [norm.gamma, norm.beta], norm.scale_shift);
        y.view().buffer().kept(&key, || Ok::<_, KernelError>(coefficients))?;
    }
    Ok(y)
}
