//! Sums, rows and elementwise operations on CUDA.

use std::ops::Range;

use ddpm_tensor::cuda::{Arguments, CudaBuffer, Launch};
use ddpm_tensor::{Cuda, Tensor, View};

use super::addends::Addends;
use super::check_indices;
use crate::cuda::{per_channel, range_of, small, view};
use crate::error::expect;
use crate::{KernelError, ptx};

/// A thread for each channel.
fn over_channels(c: usize) -> Launch {
    Launch { grid: [c.div_ceil(64) as u32, 1, 1], block: 64, shared: 0 }
}

/// [`Backend::pixel_sums`](crate::Backend::pixel_sums).
pub(crate) fn pixel_sums(cuda: &Cuda, x: View<'_, Cuda>) -> Result<Tensor<Cuda>, KernelError> {
    const OPERATION: &str = "pixel_sums";
    let [n, h, w, c] = x.shape().nhwc();
    let mut y = Tensor::zeros(cuda, [n, c])?;
    if x.shape().is_empty() {
        return Ok(y);
    }
    let arguments = view(Arguments::new(), x).output(y.view_mut().buffer(), 0);
    let arguments = arguments.value(small(OPERATION, n)?).value(small(OPERATION, h * w)?).value(small(OPERATION, c)?);
    // SAFETY: the arguments of the kernel in its order; y is [N, C].
    unsafe { cuda.launch(ptx::SUMS.into(), "pixel_sums_f32", per_channel(n, c), &arguments) }?;
    Ok(y)
}

/// [`Backend::batch_sums`](crate::Backend::batch_sums).
pub(crate) fn batch_sums(
    cuda: &Cuda,
    rows: View<'_, Cuda>,
    grads: &mut CudaBuffer,
    range: Range<usize>,
) -> Result<(), KernelError> {
    const OPERATION: &str = "batch_sums";
    let [n, h, w, c] = rows.shape().nhwc();
    expect(OPERATION, "what is summed over images", [n, c], rows.shape())?;
    expect(OPERATION, "the range of gradients", [h * w * c], [range.len()].into())?;
    range_of(grads, &range)?;
    if n * c == 0 {
        return Ok(());
    }
    small(OPERATION, n)?;
    let mut addends = Addends::default();
    addends.rows(rows, n, &range);
    addends.add(cuda, grads)
}

/// Indices as kernels read them; they are below the rows of their table, which was checked.
fn upload_indices(cuda: &Cuda, operation: &'static str, indices: &[usize]) -> Result<CudaBuffer, KernelError> {
    let indices = indices.iter().map(|&i| small(operation, i)).collect::<Result<Vec<u32>, _>>()?;
    Ok(cuda.upload_values(&indices)?)
}

/// [`Backend::gather_rows`](crate::Backend::gather_rows).
pub(crate) fn gather_rows(cuda: &Cuda, table: View<'_, Cuda>, indices: &[usize]) -> Result<Tensor<Cuda>, KernelError> {
    const OPERATION: &str = "gather_rows";
    let [rows, _, _, c] = table.shape().nhwc();
    expect(OPERATION, "the table", [rows, c], table.shape())?;
    check_indices(OPERATION, indices.len(), rows, indices)?;
    let n = indices.len();
    let mut y = Tensor::alloc(cuda, [n, c])?;
    if n * c == 0 {
        return Ok(y);
    }
    let indices = upload_indices(cuda, OPERATION, indices)?;
    let arguments = view(Arguments::new(), table).input(&indices, 0).output(y.view_mut().buffer(), 0);
    let arguments = arguments.value(small(OPERATION, n)?).value(small(OPERATION, c)?);
    // SAFETY: the arguments of the kernel in its order; the indices are rows of the table, y is [N, C].
    unsafe { cuda.launch(ptx::SUMS.into(), "gather_rows_f32", Launch::over(n * c), &arguments) }?;
    Ok(y)
}

/// [`Backend::scatter_rows`](crate::Backend::scatter_rows).
pub(crate) fn scatter_rows(
    cuda: &Cuda,
    rows: View<'_, Cuda>,
    indices: &[usize],
    grads: &mut CudaBuffer,
    range: Range<usize>,
) -> Result<(), KernelError> {
    const OPERATION: &str = "scatter_rows";
    let [n, _, _, c] = rows.shape().nhwc();
    expect(OPERATION, "the rows", [n, c], rows.shape())?;
    let table_rows = range.len().checked_div(c).unwrap_or(0);
    expect(OPERATION, "the range of gradients", [table_rows * c], [range.len()].into())?;
    check_indices(OPERATION, n, table_rows, indices)?;
    range_of(grads, &range)?;
    if n * c == 0 {
        return Ok(());
    }
    let indices = upload_indices(cuda, OPERATION, indices)?;
    let arguments = view(Arguments::new(), rows).input(&indices, 0).output(grads, range.start);
    let arguments = arguments.value(small(OPERATION, n)?).value(small(OPERATION, c)?);
    // SAFETY: the arguments of the kernel in its order; the indices are rows of the range.
    unsafe { cuda.launch(ptx::SUMS.into(), "scatter_rows_f32", over_channels(c), &arguments) }?;
    Ok(())
}

/// [`Backend::add_scaled`](crate::Backend::add_scaled).
pub(crate) fn add_scaled(cuda: &Cuda, y: &mut Tensor<Cuda>, factor: f64, x: View<'_, Cuda>) -> Result<(), KernelError> {
    expect("add_scaled", "x", y.shape(), x.shape())?;
    let len = x.shape().len();
    if len == 0 {
        return Ok(());
    }
    let arguments = view(Arguments::new().output(y.view_mut().buffer(), 0), x).value(factor as f32).value(len as u64);
    // SAFETY: the arguments of the kernel in its order; x and y have `len` elements.
    unsafe { cuda.launch(ptx::SUMS.into(), "add_scaled_f32", Launch::over(len.div_ceil(4)), &arguments) }?;
    Ok(())
}

/// [`Backend::affine`](crate::Backend::affine).
pub(crate) fn affine(cuda: &Cuda, x: View<'_, Cuda>, factor: f64, shift: f64) -> Result<Tensor<Cuda>, KernelError> {
    let mut y = Tensor::alloc(cuda, x.shape())?;
    let len = x.shape().len();
    if len == 0 {
        return Ok(y);
    }
    let arguments = view(Arguments::new(), x).output(y.view_mut().buffer(), 0);
    let arguments = arguments.value(factor as f32).value(shift as f32).value(len as u64);
    // SAFETY: the arguments of the kernel in its order; x and y have `len` elements.
    unsafe { cuda.launch(ptx::SUMS.into(), "affine_f32", Launch::over(len.div_ceil(4)), &arguments) }?;
    Ok(y)
}
