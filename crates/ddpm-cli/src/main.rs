//! The `ddpm` program.
fn main() {}
