//! `ddpm doctor`: what this machine offers, what it lacks, and whether its GPUs compute as the CPU does.

mod self_test;

use std::time::Instant;

use anyhow::Result;
use ddpm_kernels::{Backend, posterior::StepCoefficients};
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cuda, Device, Isa, Precision, Tensor, cuda};
use serde_json::{Value, json};

use crate::{
    args::DoctorArgs,
    failure::{Explain, Failure},
    output::Output,
    progress::bytes,
};

pub(super) fn run(args: &DoctorArgs) -> Result<()> {
    let output = Output::new(args.talk);
    let sets = Isa::all();
    let names: Vec<_> = sets.iter().map(|isa| isa.name()).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let gpu = cuda::probe();
    let gpu_text = match &gpu {
        Ok(info) => format!("{} that answer; driver for CUDA {}", info.devices, info.driver_version()),
        Err(reason) => format!("none: {reason}"),
    };
    output.result(&format!("program           ddpm {}", env!("CARGO_PKG_VERSION")))?;
    output.result(&format!("cores             {cores}"))?;
    output.result(&format!("instruction sets  {} (in use: {})", names.join(", "), Isa::detect().name()))?;
    output.result(&format!("GPUs              {gpu_text}"))?;
    let mut devices = Vec::new();
    let mut failures = Vec::new();
    for index in 0..gpu.as_ref().map_or(0, |info| info.devices) {
        devices.push(examine(output, index, &mut failures)?);
    }
    output.json(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "cores": cores,
        "isa": Isa::detect().name(),
        "isas": names,
        "gpus": gpu.as_ref().map_or(0, |info| info.devices),
        "gpu_reason": gpu.as_ref().err().map(ToString::to_string),
        "devices": devices,
    }))?;
    if let Err(reason) = gpu {
        return Err(Failure::new(reason).next("the CPU computes everything; a GPU needs NVIDIA's driver alone").into());
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(Failure::new(failures.join("; ")).next("--device cpu works everywhere").into())
}

/// What one GPU is, how far it is from the CPU in every operation, and how fast it moves memory.
fn examine(output: Output, index: usize, failures: &mut Vec<String>) -> Result<Value> {
    let cuda = match Cuda::new(index, Precision::Strict) {
        Ok(cuda) => cuda,
        Err(reason) => {
            output.result(&format!("GPU {index}             {reason}"))?;
            failures.push(reason.to_string());
            return Ok(json!({ "index": index, "reason": reason.to_string() }));
        }
    };
    let place = || format!("GPU {index}");
    let info = cuda.info().clone();
    let (major, minor) = info.capability;
    output.result(&format!(
        "GPU {index}             {}, capability {major}.{minor}, {} multiprocessors, {}; kernels from PTX, compiled by the driver",
        info.name,
        info.multiprocessors,
        bytes(info.memory as u64)
    ))?;
    let begun = Instant::now();
    let mut checks = self_test::compare(&cuda).at(place())?;
    let others = if info.multiplies_bf16() { &[Precision::F32, Precision::Bf16][..] } else { &[] };
    for &precision in others {
        checks.extend(self_test::compare(&Cuda::new(index, precision).at(place())?).at(place())?);
    }
    output.result(&format!(
        "self-test         {} operations against the CPU, {:.1} s",
        checks.len(),
        begun.elapsed().as_secs_f64()
    ))?;
    for check in &checks {
        let verdict = if check.passes() { "agrees" } else { "DIFFERS" };
        let name = format!("{}, {}", check.name, check.precision);
        output.result(&format!("  {name:<36}{verdict}, relative error {:.1e}", check.error))?;
        if !check.passes() {
            failures.push(format!("GPU {index} differs from the CPU in {name} by {:.1e}", check.error));
        }
    }
    if others.is_empty() {
        output.result("  no tensor cores for bf16: --precision f32 computes as strict does")?;
    }
    let bandwidths = bandwidths(&cuda).at(place())?;
    for (name, bandwidth) in bandwidths {
        output.result(&format!("{name:<18}{:.0} GB/s read and written", bandwidth / 1e9))?;
    }
    Ok(json!({
        "index": index,
        "name": info.name,
        "capability": format!("{major}.{minor}"),
        "memory": info.memory,
        "checks": checks.iter().map(|check| json!({
            "name": check.name, "precision": check.precision.to_string(), "error": check.error
        })).collect::<Vec<_>>(),
        "bandwidth": bandwidths.iter().map(|(name, b)| ((*name).to_owned(), json!(b))).collect::<serde_json::Map<_, _>>(),
    }))
}

/// Bytes a second that a copy, noising and a step back read and write, on tensors that no cache holds.
fn bandwidths(cuda: &Cuda) -> Result<[(&'static str, f64); 3]> {
    const REPEATS: usize = 5;
    let len = (cuda.info().memory / 32).min(1 << 30) / size_of::<f32>() / 8 * 8;
    let x = Tensor::<Cuda>::zeros(cuda, [8, len / 8])?;
    let timed = |tensors: usize, run: &dyn Fn() -> Result<()>| -> Result<f64> {
        run()?;
        cuda.synchronize()?;
        let begun = Instant::now();
        for _ in 0..REPEATS {
            run()?;
        }
        cuda.synchronize()?;
        Ok((REPEATS * tensors * len * size_of::<f32>()) as f64 / begun.elapsed().as_secs_f64())
    };
    let address = Address::new(1, Purpose::Test);
    let copy = timed(2, &|| {
        let mut y = cuda.alloc(len)?;
        Ok(cuda.copy(x.view().buffer(), 0..len, &mut y, 0)?)
    })?;
    let noise = timed(3, &|| cuda.noise(x.view(), &[(0.5, 0.5); 8], address).map(drop).map_err(Into::into))?;
    let c = StepCoefficients {
        predict_x: 1.0,
        predict_output: -0.5,
        clip: 1.0,
        from_x_0: 0.5,
        from_x: 0.5,
        from_output: 0.0,
        sigma: 0.1,
    };
    let back = timed(3, &|| cuda.reverse_step(x.view(), x.view(), &c, address, false).map(drop).map_err(Into::into))?;
    Ok([("copy", copy), ("noising", noise), ("step back", back)])
}
