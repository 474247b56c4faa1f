//! Calculus.

pub mod config;
