//! Likelihoods and scores against independent evaluations, whose figures are committed with the scripts that made them.
#![allow(clippy::unwrap_used)]

mod fixed_network;
mod formula;
mod inception;
mod nll;
mod scores;
