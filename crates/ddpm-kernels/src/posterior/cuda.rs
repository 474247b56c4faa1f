//! A step of the reverse process on CUDA.

use ddpm_tensor::cuda::Arguments;
use ddpm_tensor::random::Address;
use ddpm_tensor::{Cuda, Tensor, View};

use super::StepCoefficients;
use crate::cuda::{over_images, view};
use crate::error::expect;
use crate::noise::cuda::{address, images};
use crate::{KernelError, ptx};

/// [`Backend::reverse_step`](crate::Backend::reverse_step).
pub(crate) fn reverse_step(
    cuda: &Cuda,
    x: View<'_, Cuda>,
    output: View<'_, Cuda>,
    c: &StepCoefficients,
    at: Address,
    x_0: bool,
) -> Result<(Tensor<Cuda>, Option<Tensor<Cuda>>), KernelError> {
    expect("reverse_step", "the network's output", x.shape(), output.shape())?;
    let (n, len) = images(x.shape());
    let mut next = Tensor::alloc(cuda, x.shape())?;
    let mut predicted = if x_0 { Some(Tensor::alloc(cuda, x.shape())?) } else { None };
    if x.shape().is_empty() {
        return Ok((next, predicted));
    }
    let arguments = view(view(Arguments::new(), x), output).output(next.view_mut().buffer(), 0);
    let arguments = match &mut predicted {
        Some(predicted) => arguments.output(predicted.view_mut().buffer(), 0),
        None => arguments.value(0u64),
    };
    let arguments = address(arguments.value(n as u64).value(len as u64).value(*c), at);
    // SAFETY: the arguments of the kernel in its order; all tensors have n · len elements.
    unsafe { cuda.launch(ptx::POSTERIOR.into(), "posterior_f32", over_images(n, len), &arguments) }?;
    Ok((next, predicted))
}
