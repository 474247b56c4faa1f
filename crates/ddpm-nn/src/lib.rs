//! Calculus.
