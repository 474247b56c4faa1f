//! Sums over pixels and over images, rows of tables, and what is done to each element alone.

use crate::KernelError;

pub(crate) mod addends;
pub(crate) mod cpu;
pub(crate) mod cuda;

/// Images whose sum is made from zero before it is added to a gradient, so that micro-batches of a multiple of it give
/// the bits of the whole batch.
pub const GROUP: usize = 16;

/// Fails unless there is an index for each image and each is a row of the table.
fn check_indices(operation: &'static str, images: usize, rows: usize, indices: &[usize]) -> Result<(), KernelError> {
    if indices.len() != images {
        let what = format!("{} indices came for {images} images", indices.len());
        return Err(KernelError::Setting { operation, what });
    }
    match indices.iter().find(|&&i| i >= rows) {
        None => Ok(()),
        Some(i) => Err(KernelError::Setting { operation, what: format!("row {i} of a table of {rows} rows") }),
    }
}
