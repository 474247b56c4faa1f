//! From `--device`, `--threads`, `--precision` and `--isa` to a device that computes.

use anyhow::Result;
use ddpm_tensor::{Cpu, CpuOptions, Isa, Precision, cuda};

use crate::{
    args::{DeviceName, Machine, PrecisionName},
    failure::{Explain, Failure},
};

/// Refuses what has no engine yet, before anything is read or built.
pub(super) fn check(machine: &Machine) -> Result<()> {
    if let DeviceName::Cuda(index) = machine.device {
        // No GPU is a fact about the machine, and said as one; a GPU that answers has no engine here yet.
        let info = cuda::probe().at(format!("--device cuda:{index}")).next("--device cpu works everywhere")?;
        if index >= info.devices {
            let what = format!("there is no GPU {index}: this machine has {}", info.devices);
            return Err(Failure::new(what).place(format!("--device cuda:{index}")).into());
        }
        return Err(Failure::not_built("computing on a GPU").next("--device cpu works everywhere").into());
    }
    let isa = isa(machine)?.unwrap_or_else(Isa::detect);
    if machine.precision == Some(PrecisionName::Bf16) && !isa.multiplies_bf16() {
        let what = format!("the instruction set {isa} has no products of bf16: AMX has them");
        return Err(Failure::usage(what).place("--precision bf16").next("--precision f32 works everywhere").into());
    }
    Ok(())
}

fn isa(machine: &Machine) -> Result<Option<Isa>> {
    let has = || Isa::all().iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ");
    match machine.isa.as_deref() {
        None => Ok(None),
        Some(name @ ("portable" | "avx2" | "avx512" | "amx")) => {
            match Isa::all().into_iter().find(|isa| isa.name() == name) {
                Some(isa) => Ok(Some(isa)),
                None => Err(Failure::new(format!("this machine has no {name}")).place("--isa").next(has()).into()),
            }
        }
        Some(name) => Err(Failure::usage(format!("there is no instruction set `{name}`"))
            .place("--isa")
            .next("portable, avx2, avx512 or amx")
            .into()),
    }
}

/// Opens the device, and says in one line why it is not the GPU where that was left open.
pub(super) fn open(machine: &Machine, default: Precision) -> Result<(Cpu<f32>, Option<String>)> {
    check(machine)?;
    let precision = match machine.precision {
        None => default,
        Some(PrecisionName::Strict) => Precision::Strict,
        Some(PrecisionName::F32) => Precision::F32,
        Some(PrecisionName::Bf16) => Precision::Bf16,
    };
    let why = (machine.device == DeviceName::Auto).then(|| match cuda::probe() {
        Ok(_) => "a GPU answers, but computing on it is not built yet: using the CPU".to_owned(),
        Err(reason) => format!("using the CPU: {reason}"),
    });
    let threads = machine.threads.map(usize::from).or_else(threads_from_environment);
    let cpu = Cpu::new(CpuOptions { threads, isa: isa(machine)?, precision }).at("starting the CPU's threads")?;
    Ok((cpu, why))
}

/// `RAYON_NUM_THREADS`, as rayon itself reads it: 0 and what is no number stand for the default.
fn threads_from_environment() -> Option<usize> {
    std::env::var("RAYON_NUM_THREADS").ok()?.trim().parse().ok().filter(|&n| n > 0)
}
