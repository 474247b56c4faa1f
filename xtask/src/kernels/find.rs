//! Finds NVRTC, or installs it.

use super::nvrtc::Nvrtc;
use crate::repository;
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The compiler that the committed PTX comes from. An older one makes PTX that older drivers load: this one's is
/// version 7.8, for drivers from 520 on.
pub(crate) const PINNED: &str = "NVRTC 11.8.89";
const PINNED_VERSION: (i32, i32) = (11, 8);
/// The wheel that holds it.
const WHEEL: &str = "nvidia-cuda-nvrtc-cu11==11.8.89";
/// Where it is installed, below cargo's target directory.
const FOLDER: &str = "nvrtc-11.8.89";

/// What the search gave.
pub(crate) struct Found {
    pub(crate) nvrtc: Nvrtc,
    /// Whether it is of the pinned version.
    pub(crate) exact: bool,
}

impl Found {
    fn new(nvrtc: Nvrtc) -> Self {
        let exact = nvrtc.version() == PINNED_VERSION;
        Self { nvrtc, exact }
    }
}

/// NVRTC: the one that `given` names; else one of the pinned version from a CUDA toolkit, the system's loader, a Python
/// wheel or an earlier installation; else installed now, unless `offline`; else one of another version.
pub(crate) fn nvrtc(given: Option<&Path>, offline: bool) -> Result<Found> {
    if let Some(path) = given {
        return Nvrtc::load(path).map(Found::new);
    }
    let installed = repository::target_directory()?.join(FOLDER);
    let mut other: Option<Nvrtc> = None;
    for candidate in candidates(&installed) {
        let Ok(nvrtc) = Nvrtc::load(candidate) else { continue };
        if nvrtc.version() == PINNED_VERSION {
            return Ok(Found::new(nvrtc));
        }
        if other.as_ref().is_none_or(|other| nvrtc.version() < other.version()) {
            other = Some(nvrtc);
        }
    }
    let failed = if offline {
        "--offline was given".to_owned()
    } else {
        match install(&installed) {
            Ok(nvrtc) => return Ok(Found::new(nvrtc)),
            Err(error) => format!("{error:#}"),
        }
    };
    if let Some(nvrtc) = other {
        return Ok(Found::new(nvrtc));
    }
    bail!(
        "no NVRTC, the compiler of the CUDA kernels, is on this machine, and it could not be installed ({failed}).\n\
         Either make `python3 -m pip install {WHEEL}` work here, or install a CUDA toolkit (11.8 for the pinned \
         version) and set CUDA_PATH to it, or name the library with --nvrtc FILE.\n\
         To build and run the program none is needed: the compiled kernels are committed."
    )
}

/// Everything that may be an NVRTC, in the order of search: files, and names that the system's loader may know.
fn candidates(installed: &Path) -> Vec<OsString> {
    let mut found = Vec::new();
    let named = ["CUDA_PATH", "CUDA_HOME"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    for toolkit in named.chain(["/usr/local/cuda".into(), "/opt/cuda".into()]) {
        for folder in ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib", "bin"] {
            found.extend(libraries(&toolkit.join(folder)));
        }
    }
    found.extend(["libnvrtc.so.11.2", "libnvrtc.so", "libnvrtc.so.12", "libnvrtc.so.13"].map(OsString::from));
    for site in python_path().into_iter().chain([installed.to_owned()]) {
        found.extend(wheel_libraries(&site));
    }
    found
}

/// The NVRTC libraries of NVIDIA's wheels in a folder of Python packages: `nvidia/*/lib/libnvrtc.so.*`.
fn wheel_libraries(site: &Path) -> Vec<OsString> {
    let packages = entries(&site.join("nvidia"));
    packages
        .iter()
        .flat_map(|package| ["lib", "bin"].map(|folder| package.join(folder)))
        .flat_map(|f| libraries(&f))
        .collect()
}

/// The NVRTC libraries in a folder.
fn libraries(folder: &Path) -> Vec<OsString> {
    let is_nvrtc = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("libnvrtc.so")
            || (name.starts_with("nvrtc64_") && path.extension().is_some_and(|ending| ending == "dll"))
    };
    entries(folder).into_iter().filter(is_nvrtc).map(PathBuf::into_os_string).collect()
}

/// What a folder holds, in order; nothing if it is not there.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

/// Where Python looks for packages; nothing without a Python.
fn python_path() -> Vec<PathBuf> {
    let Some(python) = python() else { return Vec::new() };
    let script = "import sys; print('\\n'.join(p for p in sys.path if p))";
    let Ok(output) = Command::new(python).args(["-c", script]).output() else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect()
}

/// A Python that answers.
fn python() -> Option<&'static str> {
    let answers = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    ["python3", "python"].into_iter().find(answers)
}

/// Installs the pinned NVRTC into a folder below the target directory.
fn install(folder: &Path) -> Result<Nvrtc> {
    let python = python().context("there is no python3 to install it with")?;
    println!("no {PINNED} on this machine: pip installs {WHEEL} (23 MB) into {}", folder.display());
    // Beside its final place first: an installation that was cut short is never taken for one.
    let partial = folder.with_file_name(format!("{FOLDER}.partial"));
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade", "--target"];
    let output = Command::new(python).args(pip).arg(&partial).arg(WHEEL).output().context("running pip")?;
    ensure!(output.status.success(), "pip: {}", String::from_utf8_lossy(&output.stderr).trim());
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    fs::rename(&partial, folder).with_context(|| format!("renaming to {}", folder.display()))?;
    let library = wheel_libraries(folder).into_iter().next().context("the wheel holds no NVRTC")?;
    Nvrtc::load(library)
}
