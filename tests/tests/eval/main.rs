//! Likelihoods and scores against independent evaluations, whose figures are committed with the scripts that made them.
#![allow(clippy::case_sensitive_file_extension_comparisons, clippy::print_stdout, clippy::unwrap_used)]

mod fixed_network;
mod formula;
mod inception;
mod nll;
mod scores;
