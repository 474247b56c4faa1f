//! Noising on CUDA.

use ddpm_tensor::cuda::Arguments;
use ddpm_tensor::random::Address;
use ddpm_tensor::{Cuda, Shape, Tensor, View};

use crate::cuda::{over_images, view};
use crate::{KernelError, ptx};

/// An address as kernels take it.
pub(crate) fn address(arguments: Arguments, a: Address) -> Arguments {
    arguments.value(a.seed).value(a.step).value(a.sample).value(a.purpose as u32)
}

/// Images and elements of one: the first dimension counts images.
pub(crate) fn images(shape: Shape) -> (usize, usize) {
    let n = shape.dims().first().copied().unwrap_or(1);
    (n, shape.len() / n.max(1))
}

/// [`Backend::normals`](crate::Backend::normals).
pub(crate) fn normals(cuda: &Cuda, shape: Shape, at: Address) -> Result<Tensor<Cuda>, KernelError> {
    let mut y = Tensor::alloc(cuda, shape)?;
    if shape.is_empty() {
        return Ok(y);
    }
    let (n, len) = images(shape);
    let arguments = Arguments::new().output(y.view_mut().buffer(), 0).value(n as u64).value(len as u64);
    // SAFETY: the arguments of the kernel in its order; y has n · len elements.
    unsafe { cuda.launch(ptx::NOISE.into(), "normals_f32", over_images(n, len), &address(arguments, at)) }?;
    Ok(y)
}

/// [`Backend::noise`](crate::Backend::noise).
pub(crate) fn noise(
    cuda: &Cuda,
    x_0: View<'_, Cuda>,
    coefficients: &[(f32, f32)],
    at: Address,
) -> Result<(Tensor<Cuda>, Tensor<Cuda>), KernelError> {
    let (n, len) = images(x_0.shape());
    if coefficients.len() != n {
        let what = format!("{} coefficients came for {n} images", coefficients.len());
        return Err(KernelError::Setting { operation: "noise", what });
    }
    let (mut x_t, mut eps) = (Tensor::alloc(cuda, x_0.shape())?, Tensor::alloc(cuda, x_0.shape())?);
    if x_0.shape().is_empty() {
        return Ok((x_t, eps));
    }
    // first all of one kind, then all of the other
    let both: Vec<f32> = coefficients.iter().map(|c| c.0).chain(coefficients.iter().map(|c| c.1)).collect();
    let both = cuda.upload_values(&both)?;
    let arguments = view(Arguments::new(), x_0).input(&both, 0).input(&both, n);
    let arguments = arguments.output(x_t.view_mut().buffer(), 0).output(eps.view_mut().buffer(), 0);
    let arguments = address(arguments.value(n as u64).value(len as u64), at);
    // SAFETY: the arguments of the kernel in its order; all tensors have n · len elements, the coefficients n each.
    unsafe { cuda.launch(ptx::NOISE.into(), "noise_f32", over_images(n, len), &arguments) }?;
    Ok((x_t, eps))
}
