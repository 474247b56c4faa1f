//! The CUDA kernels, compiled to PTX and embedded: the program needs no CUDA toolkit, neither to build nor to run.
//!
//! `cargo xtask build-kernels` makes the PTX from `kernels/*.cu`; see `kernels/README.md`.

use ddpm_tensor::cuda::Source;

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

/// [`crate::adamw`] on CUDA.
pub const ADAMW: Module = Module {
    name: "adamw",
    text: include_str!("../../../kernels/adamw.ptx"),
    kernels: &["squared_norm_f32", "adamw_f32"],
};

/// [`crate::attention`] on CUDA.
pub const ATTENTION: Module = Module {
    name: "attention",
    text: include_str!("../../../kernels/attention.ptx"),
    kernels: &[
        "attention_statistics_f32",
        "attention_grad_statistics_f32",
        "attention_f32",
        "attention_dv_f32",
        "attention_dq_f32",
        "attention_dk_f32",
    ],
};

/// [`crate::attention`] on tensor cores: for capability 8.0 and later.
pub const ATTENTION_TENSOR: Module = Module {
    name: "attention_tensor",
    text: include_str!("../../../kernels/attention_tensor.ptx"),
    kernels: &[
        "attention_statistics_split",
        "attention_grad_statistics_split",
        "attention_split",
        "attention_dv_split",
        "attention_dq_split",
        "attention_dk_split",
    ],
};

/// [`crate::conv`] on CUDA.
pub const CONV: Module = Module {
    name: "conv",
    text: include_str!("../../../kernels/conv.ptx"),
    kernels: &["conv_f32", "conv_input_grad_f32", "conv_weight_grad_3_f32", "conv_weight_grad_1_f32"],
};

/// [`crate::conv`] on tensor cores: for capability 8.0 and later.
pub const CONV_TENSOR: Module = Module {
    name: "conv_tensor",
    text: include_str!("../../../kernels/conv_tensor.ptx"),
    kernels: &[
        "pack_weights",
        "conv_rounded_64x64",
        "conv_rounded_128x128",
        "conv_split_64x64",
        "conv_split_128x64",
        "add_parts_f32",
        "conv_weight_grad_3_rounded",
        "conv_weight_grad_1_rounded",
        "conv_weight_grad_3_split",
        "conv_weight_grad_1_split",
    ],
};

/// [`crate::loss`] on CUDA.
pub const LOSS: Module =
    Module { name: "loss", text: include_str!("../../../kernels/loss.ptx"), kernels: &["loss_f32"] };

/// [`crate::noise`] on CUDA.
pub const NOISE: Module =
    Module { name: "noise", text: include_str!("../../../kernels/noise.ptx"), kernels: &["noise_f32", "normals_f32"] };

/// [`crate::Operand`] on CUDA.
pub const OPERAND: Module = Module {
    name: "operand",
    text: include_str!("../../../kernels/operand.ptx"),
    kernels: &[
        "norm_coefficients_f32",
        "operand_value_f32",
        "operand_pull_f32",
        "norm_means_f32",
        "operand_grad_f32",
        "operand_backward_f32",
        "norm_param_grad_f32",
    ],
};

/// [`crate::posterior`] on CUDA.
pub const POSTERIOR: Module =
    Module { name: "posterior", text: include_str!("../../../kernels/posterior.ptx"), kernels: &["posterior_f32"] };

/// [`crate::Backend::norm_statistics`] on CUDA.
pub const STATISTICS: Module = Module {
    name: "statistics",
    text: include_str!("../../../kernels/statistics.ptx"),
    kernels: &["channel_statistics_f32", "norm_statistics_f32"],
};

/// [`crate::sums`] on CUDA.
pub const SUMS: Module = Module {
    name: "sums",
    text: include_str!("../../../kernels/sums.ptx"),
    kernels: &["pixel_sums_f32", "gather_rows_f32", "scatter_rows_f32", "add_scaled_f32", "affine_f32", "add_sums_f32"],
};

/// Every module.
pub const ALL: &[Module] =
    &[ADAMW, ATTENTION, ATTENTION_TENSOR, CONV, CONV_TENSOR, LOSS, NOISE, OPERAND, POSTERIOR, STATISTICS, SUMS];

impl From<Module> for Source {
    fn from(module: Module) -> Self {
        Self { name: module.name, ptx: module.text }
    }
}

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
