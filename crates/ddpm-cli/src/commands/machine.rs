//! From `--device`, `--threads`, `--precision` and `--isa` to a device that computes.

use std::time::Duration;

use anyhow::Result;
use ddpm_kernels::Backend;
use ddpm_tensor::{Cpu, CpuOptions, Cuda, Isa, Precision, TensorError, cuda};
use ddpm_train::trainer::Engine;

use crate::{
    args::{DeviceName, Machine, PrecisionName},
    failure::{Explain, Failure},
};

/// Refuses what cannot be had, before anything is read or built.
pub(super) fn check(machine: &Machine) -> Result<()> {
    isa(machine)?;
    match machine.device {
        DeviceName::Cuda(index) => {
            let place = format!("--device cuda:{index}");
            let info = cuda::probe().at(&place).next("--device cpu works everywhere")?;
            if index >= info.devices {
                let what = format!("there is no GPU {index}: this machine has {}", info.devices);
                return Err(Failure::new(what).place(place).into());
            }
            Ok(())
        }
        DeviceName::Auto if cuda::probe().is_ok() => Ok(()),
        DeviceName::Auto | DeviceName::Cpu => check_cpu(machine),
    }
}

/// Refuses bf16 on a CPU that has no products of it.
fn check_cpu(machine: &Machine) -> Result<()> {
    let isa = isa(machine)?.unwrap_or_else(Isa::detect);
    if machine.precision == Some(PrecisionName::Bf16) && !isa.multiplies_bf16() {
        let what = format!("the instruction set {isa} has no products of bf16: AMX and AVX512-BF16 have them");
        return Err(Failure::usage(what).place("--precision bf16").next("--precision f32 works everywhere").into());
    }
    Ok(())
}

/// Why a GPU cannot compute in bf16, if it cannot.
fn lacks_bf16(cuda: &Cuda) -> Option<String> {
    let info = cuda.info();
    let (major, minor) = info.capability;
    (cuda.precision() == Precision::Bf16 && !info.multiplies_bf16())
        .then(|| format!("{} has compute capability {major}.{minor}, and products of bf16 need 8.0 or more", info.name))
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

/// A device that computes, and what the program says of it.
pub(super) trait Machinery: Backend<Elem = f32> {
    /// Kind of device, instruction set or name, precision: a phrase.
    fn describe(&self) -> String;
    /// What checkpoints call it.
    fn engine(&self) -> Engine;
    /// Waits for what was queued.
    fn wait(&self) -> Result<(), TensorError>;
    /// The most memory that it held at once, in bytes, and how many allocations it has made so far where it counts them.
    fn memory(&self) -> (usize, Option<usize>);
    /// Threads, where it has any.
    fn threads(&self) -> Option<usize>;
    /// A handle of the same kind that only counts the memory it would take, where there is such a thing.
    fn rehearsal(&self) -> Result<Option<Cpu<f32>>, TensorError>;
    /// Time spent in each kind of operation so far, where it is told.
    fn times(&self) -> Vec<(&'static str, u64, Duration)>;
}

impl Machinery for Cpu<f32> {
    fn describe(&self) -> String {
        format!("CPU, {}, {} threads, {}", self.isa().name(), Cpu::threads(self), self.precision())
    }

    fn engine(&self) -> Engine {
        Engine { isa: self.isa().name().to_owned(), precision: self.precision().to_string() }
    }

    fn wait(&self) -> Result<(), TensorError> {
        Ok(())
    }

    fn memory(&self) -> (usize, Option<usize>) {
        (self.peak_bytes(), Some(self.system_allocations()))
    }

    fn threads(&self) -> Option<usize> {
        Some(Cpu::threads(self))
    }

    fn rehearsal(&self) -> Result<Option<Cpu<f32>>, TensorError> {
        let (threads, isa) = (Some(Cpu::threads(self)), Some(self.isa()));
        Cpu::rehearsal(CpuOptions { threads, isa, precision: self.precision() }).map(Some)
    }

    fn times(&self) -> Vec<(&'static str, u64, Duration)> {
        Cpu::times(self)
    }
}

impl Machinery for Cuda {
    fn describe(&self) -> String {
        let info = self.info();
        let (major, minor) = info.capability;
        format!("GPU {}, {}, capability {major}.{minor}, {}", info.index, info.name, self.precision())
    }

    fn engine(&self) -> Engine {
        let (major, minor) = self.info().capability;
        Engine { isa: format!("cuda sm_{major}{minor}"), precision: self.precision().to_string() }
    }

    fn wait(&self) -> Result<(), TensorError> {
        self.synchronize()
    }

    fn memory(&self) -> (usize, Option<usize>) {
        (self.peak_bytes(), None)
    }

    fn threads(&self) -> Option<usize> {
        None
    }

    fn rehearsal(&self) -> Result<Option<Cpu<f32>>, TensorError> {
        Ok(None)
    }

    fn times(&self) -> Vec<(&'static str, u64, Duration)> {
        Vec::new()
    }
}

/// What was opened.
pub(super) enum Opened {
    /// The CPU.
    Cpu(Cpu<f32>),
    /// A GPU.
    Cuda(Cuda),
}

/// Runs the same words on whichever device was opened.
macro_rules! on_device {
    ($opened:expr, $device:ident => $body:expr) => {
        match $opened {
            $crate::commands::machine::Opened::Cpu($device) => $body,
            $crate::commands::machine::Opened::Cuda($device) => $body,
        }
    };
}
pub(super) use on_device;

/// Opens the device, and says in one line why it is not the GPU where that was left open.
pub(super) fn open(machine: &Machine, default: Precision) -> Result<(Opened, Option<String>)> {
    check(machine)?;
    let precision = match machine.precision {
        None => default,
        Some(PrecisionName::Strict) => Precision::Strict,
        Some(PrecisionName::F32) => Precision::F32,
        Some(PrecisionName::Bf16) => Precision::Bf16,
    };
    let why = match machine.device {
        DeviceName::Cpu => None,
        DeviceName::Cuda(index) => {
            let cuda = Cuda::new(index, precision).at(format!("--device cuda:{index}"));
            let cuda = cuda.next("--device cpu works everywhere")?;
            if let Some(reason) = lacks_bf16(&cuda) {
                return Err(Failure::usage(reason)
                    .place("--precision bf16")
                    .next("--precision f32 works there")
                    .into());
            }
            return Ok((Opened::Cuda(cuda), None));
        }
        DeviceName::Auto => match Cuda::new(0, precision) {
            Ok(cuda) => match lacks_bf16(&cuda) {
                None => return Ok((Opened::Cuda(cuda), None)),
                Some(reason) => Some(format!("using the CPU: {reason}")),
            },
            Err(reason) => Some(format!("using the CPU: {reason}")),
        },
    };
    check_cpu(machine)?;
    let threads = machine.threads.map(usize::from).or_else(threads_from_environment);
    let cpu = Cpu::new(CpuOptions { threads, isa: isa(machine)?, precision }).at("starting the CPU's threads")?;
    Ok((Opened::Cpu(cpu), why))
}

/// `RAYON_NUM_THREADS`, as rayon itself reads it: 0 and what is no number stand for the default.
fn threads_from_environment() -> Option<usize> {
    std::env::var("RAYON_NUM_THREADS").ok()?.trim().parse().ok().filter(|&n| n > 0)
}
