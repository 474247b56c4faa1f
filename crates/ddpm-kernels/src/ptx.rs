//! The CUDA kernels, compiled to PTX and embedded: the program needs no CUDA toolkit, neither to build nor to run.
//!
//! `cargo xtask build-kernels` makes the PTX from `kernels/*.cu`; see `kernels/README.md`.

/// A compiled `.cu` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// The operation's name: `noise` for `kernels/noise.cu`.
    pub name: &'static str,
    /// The PTX.
    pub text: &'static str,
    /// The names of the kernels in it, as `cuModuleGetFunction` takes them.
    pub kernels: &'static [&'static str],
}

/// [`crate::noise`] on CUDA.
pub const NOISE: Module =
    Module { name: "noise", text: include_str!("../../../kernels/noise.ptx"), kernels: &["noise_f32"] };

/// [`crate::posterior`] on CUDA.
pub const POSTERIOR: Module =
    Module { name: "posterior", text: include_str!("../../../kernels/posterior.ptx"), kernels: &["posterior_f32"] };

/// Every module.
pub const ALL: &[Module] = &[NOISE, POSTERIOR];

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn every_module_has_exactly_the_kernels_it_lists() {
        for module in ALL {
            let entries = module.text.lines().filter_map(|line| line.strip_prefix(".visible .entry "));
            let entries: Vec<&str> = entries.map(|line| line.trim_end_matches('(')).collect();
            assert_eq!(entries, module.kernels, "kernels/{}.ptx", module.name);
        }
    }

    /// An approximate root or a flushed denormal would give other bits than the CPU's, and so would a product and a sum
    /// without `.rn`, which the driver may make one fused operation of.
    #[test]
    fn every_operation_is_rounded_as_on_the_cpu() {
        for module in ALL {
            for line in module.text.lines().map(str::trim) {
                for inexact in [".ftz", ".approx", ".full", "mul.f32", "add.f32", "sub.f32"] {
                    assert!(!line.contains(inexact), "kernels/{}.ptx: {line}", module.name);
                }
            }
        }
    }
}
