//! Data sets as they come: every format in many forms, broken ones, hostile ones, and the batches
//! that are made of them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod arrays;
mod batches;
mod binaries;
mod hostile;
mod make;
mod pictures;
