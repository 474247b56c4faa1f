//! `cargo xtask build-kernels`: CUDA C++ to PTX with NVRTC, which needs no GPU, no driver, no nvcc and no C++ compiler.

mod find;
mod manifest;
mod nvrtc;
mod sass;
mod variants;

use crate::repository;
use anyhow::{Context, Result, bail, ensure};
use find::Found;
use manifest::{Manifest, Module};
use nvrtc::{Nvrtc, Source};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// How every kernel is compiled, besides its architecture: each option keeps arithmetic as IEEE 754 has it, so that a GPU's
/// bits are a CPU's; all but the first restate a default.
const OPTIONS: [&str; 5] = ["--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", "--std=c++17"];

/// The oldest architecture that we support: a driver makes newer code of it.
const ARCHITECTURE: &str = "compute_75";
/// Modules whose kernels use what only newer ones have: tensor cores for bf16 and asynchronous copies.
const NEWER: [(&str, &str); 2] = [("attention_tensor", "compute_80"), ("conv_tensor", "compute_80")];

/// What a module is compiled for.
fn architecture(module: &str) -> &'static str {
    NEWER.iter().find(|(name, _)| *name == module).map_or(ARCHITECTURE, |newer| newer.1)
}

/// How to build or check.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail if sources, manifest and PTX disagree, or if compiling anew gives other bytes
    #[arg(long)]
    check: bool,
    /// Install nothing; with --check, do not compile anew where the compiler is not here
    #[arg(long)]
    offline: bool,
    /// Build nothing: print what ptxas makes of the committed PTX for five architectures; a spilt register is an error
    #[arg(long, conflicts_with = "check")]
    sass: bool,
    /// The ptxas for --sass, instead of the one on PATH
    #[arg(long, value_name = "FILE", requires = "sass")]
    ptxas: Option<PathBuf>,
    /// The NVRTC library to use, instead of searching for one
    #[arg(long, value_name = "FILE")]
    nvrtc: Option<PathBuf>,
}

/// Builds or checks the PTX.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let folder = folder();
    if arguments.sass {
        let modules = check_hashes(&folder)?.modules.into_keys();
        let modules = modules.map(|name| {
            let of = architecture(&name);
            (name, of)
        });
        return sass::print(&folder, modules, arguments.ptxas.as_deref());
    }
    if !arguments.check {
        return build(&folder, arguments);
    }
    let committed = check_hashes(&folder)?;
    println!("sources, manifest and PTX belong together ({} modules)", committed.modules.len());
    let cannot = |why: String| {
        ensure!(arguments.offline, "{why}\nwithout compiling anew: cargo xtask build-kernels --check --offline");
        println!("not compiled anew: {why}");
        Ok(())
    };
    let Found { nvrtc, exact } = match find::nvrtc(arguments.nvrtc.as_deref(), arguments.offline) {
        Ok(found) => found,
        Err(error) if arguments.nvrtc.is_some() => return Err(error),
        Err(error) => return cannot(format!("{error:#}")),
    };
    let units = Units::read(&folder)?;
    let compiler = units.compiler(&nvrtc)?;
    if compiler != committed.compiler {
        let committed = &committed.compiler;
        return cannot(format!("the PTX was made by {committed}, and here ({}) is {compiler}", nvrtc.path().display()));
    }
    ensure!(exact, "{} is not the compiler that the project pins", nvrtc.path().display());
    for name in committed.modules.keys() {
        let file = format!("{name}.ptx");
        ensure!(
            variants::gives(&fs::read_to_string(folder.join(&file))?, || units.compile(&nvrtc, name))?,
            "kernels/{file} is not what {} makes of kernels/{name}.cu; run cargo xtask build-kernels",
            committed.compiler
        );
    }
    println!("compiled anew by {}: the same kernels", committed.compiler);
    Ok(())
}

/// Where the kernels lie.
pub(crate) fn folder() -> PathBuf {
    repository::root().join("kernels")
}

/// Whether the committed sources, manifest and PTX belong together; needs no compiler.
pub(crate) fn check_committed() -> Result<()> {
    check_hashes(&folder()).map(drop)
}

/// Compiles everything and writes PTX and manifest.
fn build(folder: &Path, arguments: &Arguments) -> Result<()> {
    let Found { nvrtc, exact } = find::nvrtc(arguments.nvrtc.as_deref(), arguments.offline)?;
    let units = Units::read(folder)?;
    let compiler = units.compiler(&nvrtc)?;
    if !exact {
        println!("note: {compiler} is not the pinned {}; older drivers may refuse its PTX", find::PINNED);
    }
    let sources = manifest::hashes(&manifest::files(folder, &["cu", "cuh"])?);
    let unchanged = Manifest::read(folder).is_ok_and(|before| before.sources == sources);
    let mut modules = BTreeMap::new();
    for name in units.sources.keys() {
        let file = folder.join(format!("{name}.ptx"));
        let compile = || units.compile(&nvrtc, name);
        // what is there already stays where it is as good as what would come anew
        let before = fs::read_to_string(&file).unwrap_or_default();
        let keep = unchanged && variants::gives(&before, compile)?;
        let ptx = if keep { before } else { variants::most_common(compile)? };
        fs::write(&file, &ptx).with_context(|| format!("writing {}", file.display()))?;
        let module = Module::of(&ptx);
        println!("kernels/{name}.ptx ({}): {}", module.architecture, module.kernels.join(", "));
        modules.insert(name.clone(), module);
    }
    for stale in manifest::files(folder, &["ptx"])?.keys().filter_map(|file| file.strip_suffix(".ptx")) {
        if !modules.contains_key(stale) {
            println!("removed kernels/{stale}.ptx: there is no kernels/{stale}.cu");
            fs::remove_file(folder.join(format!("{stale}.ptx")))?;
        }
    }
    let options = OPTIONS.map(String::from).to_vec();
    println!("compiled by {compiler} ({})", nvrtc.path().display());
    Manifest { compiler, options, sources, modules }.write(folder)
}

/// Everything that is compiled.
struct Units {
    headers: Vec<Source>,
    /// The `.cu` files, under their names without the ending.
    sources: BTreeMap<String, Source>,
}

impl Units {
    fn read(folder: &Path) -> Result<Self> {
        let headers = manifest::files(folder, &["cuh"])?.into_iter().map(Source::from).collect();
        let source = |(file, text): (String, String)| {
            let name = file.trim_end_matches(".cu").to_owned();
            (name.clone(), Source { name, text })
        };
        Ok(Self { headers, sources: manifest::files(folder, &["cu"])?.into_iter().map(source).collect() })
    }

    fn compile(&self, nvrtc: &Nvrtc, name: &str) -> Result<String> {
        let architecture = format!("--gpu-architecture={}", architecture(name));
        let options: Vec<_> = std::iter::once(&*architecture).chain(OPTIONS).collect();
        nvrtc.compile(self.sources.get(name).context("kernels/ holds no such .cu file")?, &self.headers, &options)
    }

    /// What the compiler calls itself in a PTX.
    fn compiler(&self, nvrtc: &Nvrtc) -> Result<String> {
        let name = self.sources.keys().next().context("kernels/ holds no .cu file")?;
        Ok(compiler_of(&self.compile(nvrtc, name)?))
    }
}

/// What a PTX says it was made by: `NVRTC 11.8.89`.
fn compiler_of(ptx: &str) -> String {
    let line = ptx.lines().find_map(|line| line.strip_prefix("// Cuda compilation tools, "));
    let version = line.and_then(|line| line.rsplit(", V").next()).unwrap_or("of unknown version");
    format!("NVRTC {version}")
}

/// Everything that can be checked without a compiler. Fails with all that disagrees, one a line.
fn check_hashes(folder: &Path) -> Result<Manifest> {
    let manifest = Manifest::read(folder)?;
    let mut wrong = Vec::new();
    let sources = manifest::hashes(&manifest::files(folder, &["cu", "cuh"])?);
    let ptx = manifest::files(folder, &["ptx"])?;
    let committed = manifest.modules.iter().map(|(name, module)| (format!("{name}.ptx"), module.ptx.clone()));
    manifest::compare(&sources, &manifest.sources, &mut wrong);
    manifest::compare(&manifest::hashes(&ptx), &committed.collect(), &mut wrong);
    let expected: Vec<_> = sources.keys().filter_map(|file| file.strip_suffix(".cu")).collect();
    if expected != manifest.modules.keys().collect::<Vec<_>>() {
        wrong.push(format!("the .cu files are {expected:?}, the manifest's modules another set"));
    }
    for (name, module) in &manifest.modules {
        let Some(text) = ptx.get(&format!("{name}.ptx")) else { continue };
        if module.kernels != Module::of(text).kernels {
            wrong.push(format!("{name}.ptx holds other kernels than the manifest says"));
        }
        if module.architecture != architecture(name) || module.architecture != Module::of(text).architecture {
            wrong.push(format!("{name}.ptx is for {}, not for {}", module.architecture, architecture(name)));
        }
        if compiler_of(text) != manifest.compiler {
            wrong.push(format!(
                "{name}.ptx says that {} made it, the manifest {}",
                compiler_of(text),
                manifest.compiler
            ));
        }
    }
    if manifest.options != OPTIONS {
        wrong.push("the manifest's options are not those of xtask/src/kernels/mod.rs".into());
    }
    if !wrong.is_empty() {
        bail!("kernels/ and its manifest disagree:\n  {}\nrun cargo xtask build-kernels", wrong.join("\n  "));
    }
    Ok(manifest)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{check_hashes, compiler_of};
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_committed_ptx_belongs_to_its_sources() {
        super::check_committed().unwrap();
    }

    /// A copy of `kernels/` in which `change` was done; what the check says of it.
    fn check_after(name: &str, change: impl Fn(&Path)) -> String {
        let folder = std::env::temp_dir().join(format!("ddpm-xtask-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for entry in fs::read_dir(super::folder()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
        change(&folder);
        let result = check_hashes(&folder);
        fs::remove_dir_all(&folder).unwrap();
        result.map_or_else(|error| error.to_string(), |_| "nothing".into())
    }

    fn append(file: &Path, text: &str) {
        let old = fs::read_to_string(file).unwrap();
        fs::write(file, old + text).unwrap();
    }

    #[test]
    fn every_disagreement_is_found() {
        assert_eq!(check_after("same", |_| ()), "nothing");
        type Change = dyn Fn(&Path);
        let cases: [(&str, &Change, &str); 6] = [
            ("source", &|f| append(&f.join("noise.cu"), "//"), "noise.cu is not what"),
            ("header", &|f| append(&f.join("philox.cuh"), "\n"), "philox.cuh is not what"),
            ("ptx", &|f| append(&f.join("noise.ptx"), " "), "noise.ptx is not what"),
            ("gone", &|f| fs::remove_file(f.join("noise.ptx")).unwrap(), "noise.ptx is missing"),
            ("new", &|f| fs::write(f.join("new.cu"), "").unwrap(), "new.cu is not in the manifest"),
            (
                "options",
                &|f| {
                    let manifest = fs::read_to_string(f.join("manifest.json")).unwrap();
                    fs::write(f.join("manifest.json"), manifest.replace("--fmad=false", "--fmad=true")).unwrap();
                },
                "options",
            ),
        ];
        for (name, change, expected) in cases {
            let said = check_after(name, change);
            assert!(said.contains(expected), "{name}: {said}");
        }
    }

    #[test]
    fn a_ptx_names_its_compiler() {
        let ptx = "//\n// Cuda compilation tools, release 11.8, V11.8.89\n";
        assert_eq!(compiler_of(ptx), "NVRTC 11.8.89");
        assert_eq!(compiler_of(""), "NVRTC of unknown version");
    }
}
