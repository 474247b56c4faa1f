//! `ddpm doctor`: what this machine offers, and what it lacks.

use anyhow::Result;
use ddpm_tensor::{Isa, cuda};
use serde_json::json;

use crate::{args::DoctorArgs, output::Output};

pub(super) fn run(args: &DoctorArgs) -> Result<()> {
    let output = Output::new(args.talk);
    let sets = Isa::all();
    let names: Vec<_> = sets.iter().map(|isa| isa.name()).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let gpu = cuda::probe();
    let gpu_text = match &gpu {
        Ok(info) => {
            format!("{} that answer; driver for CUDA {}.{}", info.devices, info.driver / 1000, info.driver % 1000 / 10)
        }
        Err(reason) => format!("none: {reason}"),
    };
    output.result(&format!("program           ddpm {}", env!("CARGO_PKG_VERSION")))?;
    output.result(&format!("cores             {cores}"))?;
    output.result(&format!("instruction sets  {} (in use: {})", names.join(", "), Isa::detect().name()))?;
    output.result(&format!("GPUs              {gpu_text}"))?;
    output.result("engines           CPU; computing on a GPU is not built yet")?;
    output.json(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "cores": cores,
        "isa": Isa::detect().name(),
        "isas": names,
        "gpus": gpu.as_ref().map_or(0, |info| info.devices),
        "gpu_reason": gpu.as_ref().err().map(ToString::to_string),
    }))?;
    Ok(())
}
