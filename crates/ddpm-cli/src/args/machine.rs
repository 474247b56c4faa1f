//! On what a command computes, and how precisely.

use clap::{Args, ValueEnum};

/// Device, threads, precision and instruction set.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Machine")]
pub(crate) struct Machine {
    /// auto, cpu, cuda or cuda:INDEX; auto takes the GPU if one answers
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = device)]
    pub(crate) device: DeviceName,
    /// Threads on the CPU; by default RAYON_NUM_THREADS, or one a core. Results do not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// How products are computed
    #[arg(long, value_name = "PRECISION", value_enum)]
    pub(crate) precision: Option<PrecisionName>,
    /// Instruction set of the CPU, to repeat a run to the bit on another machine: portable, avx2, avx512 or amx
    #[arg(long, value_name = "SET")]
    pub(crate) isa: Option<String>,
}

/// A device as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceName {
    /// The GPU if one answers, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU, and no other device.
    Cuda(usize),
}

fn device(text: &str) -> Result<DeviceName, String> {
    match text.split_once(':') {
        None => match text {
            "auto" => Ok(DeviceName::Auto),
            "cpu" => Ok(DeviceName::Cpu),
            "cuda" => Ok(DeviceName::Cuda(0)),
            _ => Err("expected auto, cpu, cuda or cuda:INDEX".to_owned()),
        },
        Some(("cuda", index)) => {
            index.parse().map(DeviceName::Cuda).map_err(|_| "expected a number after cuda:".to_owned())
        }
        Some(_) => Err("expected auto, cpu, cuda or cuda:INDEX".to_owned()),
    }
}

/// How products are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionName {
    /// Every product in f32 with one rounding
    Strict,
    /// f32 in and out, fast products between
    F32,
    /// Products of bf16 values, summed in f32 (on CPUs with AMX or AVX512-BF16, on GPUs of capability 8.0 and later)
    Bf16,
}
