//! A stand-in for NVIDIA's driver: our kernels, compiled for the CPU behind the driver's functions.
//!
//! Built once for its sources, below cargo's target directory, as a `libcuda.so` of its own: a program that finds it on
//! `LD_LIBRARY_PATH` has a GPU. Nothing of it is ever shipped.

use ddpm_kernels::ptx;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The kernels of `host/planted.cu`.
const PLANTED: [&str; 6] =
    ["reverse", "reverse_without_barrier", "chain_of_blocks", "sum_block", "deadlock", "divergent_barrier"];

/// The kernels of `host/planted_races.cu`.
const PLANTED_RACES: [&str; 12] = [
    "race_in_block",
    "race_of_rounds",
    "race_of_writers",
    "race_of_blocks",
    "race_across_blocks",
    "unwritten_shared",
    "race_in_warp",
    "race_despite_shuffle",
    "halves_of_words",
    "orders_of_every_kind",
    "strided",
    "vectors",
];

/// The kernels of `host/mma_probe.cu`.
const MMA_PROBES: [&str; 10] = [
    "mma_probe",
    "load_probe_1",
    "load_probe_2",
    "load_probe_4",
    "load_probe_1_turned",
    "load_probe_2_turned",
    "load_probe_4_turned",
    "copy_probe",
    "half_a_warp",
    "parts_probe",
];

/// The folder in which the library lies, built if need be.
#[allow(dead_code)] // not by every test program that includes this file
pub(crate) fn folder() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| build(false));
    &FOLDER
}

/// The folder of a library that also sees each load and store of the kernels (`host/checker.h`), built if need be.
#[allow(dead_code)] // as above
pub(crate) fn checked_folder() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| build(true));
    &FOLDER
}

/// Name of the library in [`folder`].
pub(crate) const LIBRARY: &str = "libcuda.so";

fn build(checked: bool) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().find(|folder| folder.join("kernels/manifest.json").is_file()).unwrap();
    let host = root.join("crates/ddpm-kernels/tests/cuda_on_cpu/host");
    // other kernels than the repository's: with a fault in them, which the tests must find
    let kernels = std::env::var_os("DDPM_KERNELS").map_or_else(|| root.join("kernels"), PathBuf::from);
    let compiler = compiler();
    // -ffp-contract=off is what --fmad=false is to NVRTC: no product and sum become an fma that is not written.
    let mut options = vec!["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"];
    options.extend(["-fno-math-errno", "-Wall", "-Wno-unknown-pragmas"]);
    // Without it fmaf is the C library's, as exact and slow.
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("fma") {
        options.push("-mfma");
    }
    // products of tensor cores take eight columns at a time
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        options.push("-mavx2");
    }
    let unit = |name: &str, exports: &[&str]| {
        let mut unit = format!("#include \"cuda_on_cpu.h\"\n#include \"{name}.cu\"\n");
        for kernel in exports {
            writeln!(unit, "CUDA_ON_CPU_EXPORT({kernel})").unwrap();
        }
        (name.to_owned(), unit)
    };
    let mut of_host = vec!["scheduler", "launch", "queue", "driver"];
    if checked {
        options.push("-DCUDA_ON_CPU_CHECKED");
        of_host.extend(["callbacks", "races", "requests", "sites"]);
    }
    let of_kernels: &[&str] = if checked { &["-g", "-fsanitize=thread"] } else { &[] };
    let mut units: Vec<_> =
        of_host.iter().map(|name| (name.to_string(), format!("#include \"{name}.cpp\"\n"))).collect();
    let kernels_from = units.len();
    if checked {
        units.push(unit("planted_races", &PLANTED_RACES));
    }
    units.push(unit("planted", &PLANTED));
    units.push(unit("philox_probe", &["philox_probe"]));
    units.push(unit("mma_probe", &MMA_PROBES));
    units.extend(ptx::ALL.iter().map(|module| unit(module.name, module.kernels)));

    let mut hasher = DefaultHasher::new();
    (&compiler, &options, of_kernels, &units).hash(&mut hasher);
    for folder in [&host, &kernels] {
        let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files
            .iter()
            .filter(|f| f.extension().is_some_and(|e| ["cu", "cuh", "h", "hpp", "cpp"].iter().any(|x| e == *x)))
        {
            fs::read(file).unwrap().hash(&mut hasher);
        }
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = target.join(format!("stand_in_driver-{:016x}", hasher.finish()));
    if folder.join(LIBRARY).is_file() {
        return folder;
    }
    // beside its place, and then moved there whole: other test programs may be at the same
    let work = tempfile::Builder::new().prefix("stand_in_driver-").tempdir_in(target).unwrap();
    let run = |arguments: &[&OsStr]| {
        let mut command = Command::new(&compiler);
        command.args(&options).arg("-I").arg(&host).arg("-I").arg(&kernels).args(arguments);
        let result = command.output().unwrap_or_else(|error| panic!("running {compiler}: {error}"));
        assert!(
            result.status.success(),
            "{compiler} could not compile the CUDA kernels for the CPU:\n{}",
            String::from_utf8_lossy(&result.stderr)
        );
    };
    let path = |name: &str, ending: &str| work.path().join(format!("{name}.{ending}"));
    for (name, text) in &units {
        fs::write(path(name, "unit.cpp"), text).unwrap();
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some((name, _)) = units.get(i) else { break };
                    let (source, object) = (path(name, "unit.cpp"), path(name, "o"));
                    let mut arguments = vec!["-c".as_ref(), source.as_os_str(), "-o".as_ref(), object.as_os_str()];
                    if i >= kernels_from {
                        arguments.extend(of_kernels.iter().map(OsStr::new));
                    }
                    run(&arguments);
                }
            });
        }
    });
    let objects: Vec<_> = units.iter().map(|(name, _)| path(name, "o")).collect();
    let whole = work.path().join("whole");
    fs::create_dir(&whole).unwrap();
    let library = whole.join(LIBRARY);
    let mut link: Vec<&OsStr> = vec!["-shared".as_ref(), "-Wl,-soname,libcuda.so".as_ref()];
    link.extend(objects.iter().map(|object| object.as_os_str()));
    link.extend(["-o".as_ref(), library.as_os_str()]);
    run(&link);
    if let Err(error) = fs::rename(&whole, &folder) {
        assert!(folder.join(LIBRARY).is_file(), "moving the library to {}: {error}", folder.display());
    }
    folder
}

/// A C++ compiler that answers: `$CXX`, or one of the usual names.
fn compiler() -> String {
    let named = std::env::var("CXX").ok().filter(|name| !name.is_empty());
    let candidates = named.map_or_else(|| ["c++", "g++", "clang++"].map(String::from).to_vec(), |name| vec![name]);
    let answers = |name: &String| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    candidates.iter().find(|name| answers(name)).cloned().unwrap_or_else(|| {
        panic!(
            "the tests of the CUDA kernels run them on the CPU, and for that need a C++17 compiler; none of these \
             answers: {}. Install one (on Debian or Ubuntu: apt-get install g++), or set CXX.",
            candidates.join(", ")
        )
    })
}
