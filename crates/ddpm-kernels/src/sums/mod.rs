//! Sums over pixels and over images, rows of tables, and what is done to each element alone.

pub(crate) mod cpu;

/// Images whose sum is made from zero before it is added to a gradient, so that micro-batches of a multiple of it give
/// the bits of the whole batch.
pub const GROUP: usize = 16;
