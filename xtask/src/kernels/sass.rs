//! `cargo xtask build-kernels --sass`: what `ptxas` makes of the committed PTX, by architecture and kernel.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Turing, A100, RTX 30, RTX 40, H100.
const ARCHITECTURES: [&str; 5] = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90"];

/// What a kernel takes on one architecture.
#[derive(Debug, PartialEq)]
struct Usage {
    kernel: String,
    registers: usize,
    shared: usize,
    spilled: usize,
}

/// Prints a table of registers and static shared memory of modules and what they are compiled for; a spill is an error.
pub(super) fn print(
    folder: &Path,
    modules: impl Iterator<Item = (String, &'static str)>,
    ptxas: Option<&Path>,
) -> Result<()> {
    let ptxas = ptxas.map_or_else(|| PathBuf::from("ptxas"), Path::to_owned);
    let mut table =
        format!("| kernel | static shared memory | registers on {} |\n|---|---|---|\n", ARCHITECTURES.join(", "));
    let mut spills = Vec::new();
    let scratch = tempfile_name();
    for (module, oldest) in modules {
        let ptx = folder.join(format!("{module}.ptx"));
        let mut rows: BTreeMap<String, (usize, Vec<String>)> = BTreeMap::new();
        for (i, architecture) in ARCHITECTURES.iter().enumerate() {
            if !runs(oldest, architecture) {
                continue;
            }
            for usage in assemble(&ptxas, &ptx, architecture, &scratch)? {
                if usage.spilled > 0 {
                    spills.push(format!("{} on {architecture}: {} bytes", usage.kernel, usage.spilled));
                }
                let row = rows.entry(usage.kernel).or_insert((usage.shared, vec!["–".into(); ARCHITECTURES.len()]));
                row.1[i] = usage.registers.to_string();
            }
        }
        for (kernel, (shared, registers)) in rows {
            writeln!(table, "| `{kernel}` | {shared} | {} |", registers.join(", "))?;
        }
    }
    let _ = std::fs::remove_file(&scratch);
    println!("{table}");
    ensure!(spills.is_empty(), "kernels spill registers:\n  {}", spills.join("\n  "));
    println!("no kernel spills a register");
    Ok(())
}

/// Whether what is compiled for `oldest` (`compute_80`) runs on an architecture (`sm_75`).
fn runs(oldest: &str, architecture: &str) -> bool {
    let number = |name: &str| name.rsplit('_').next().and_then(|digits| digits.parse::<usize>().ok());
    number(oldest) <= number(architecture)
}

fn tempfile_name() -> PathBuf {
    std::env::temp_dir().join(format!("ddpm-sass-{}.cubin", std::process::id()))
}

fn assemble(ptxas: &Path, ptx: &Path, architecture: &str, out: &Path) -> Result<Vec<Usage>> {
    let result =
        Command::new(ptxas).args(["-v", "--gpu-name", architecture, "-o"]).args([out, ptx]).output().with_context(
            || format!("running {}; PyPI's nvidia-cuda-nvcc-cu12 holds a ptxas (--ptxas FILE)", ptxas.display()),
        )?;
    let said = String::from_utf8_lossy(&result.stderr).into_owned() + &String::from_utf8_lossy(&result.stdout);
    ensure!(result.status.success(), "ptxas refuses {} for {architecture}:\n{said}", ptx.display());
    Ok(usages(&said))
}

/// What `ptxas -v` says, kernel by kernel.
fn usages(said: &str) -> Vec<Usage> {
    let number_before = |line: &str, what: &str| -> usize {
        let before = line.split(what).next().filter(|before| before.len() < line.len()).unwrap_or_default();
        before.split_whitespace().next_back().and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    let mut usages: Vec<Usage> = Vec::new();
    for line in said.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            usages.push(Usage { kernel, registers: 0, shared: 0, spilled: 0 });
        } else if let Some(last) = usages.last_mut() {
            last.spilled += number_before(line, " bytes spill stores");
            last.registers = last.registers.max(number_before(line, " registers"));
            last.shared = last.shared.max(number_before(line, " bytes smem"));
        }
    }
    usages
}

#[cfg(test)]
mod tests {
    use super::{Usage, runs, usages};

    #[test]
    fn code_for_newer_architectures_does_not_run_on_older_ones() {
        assert!(runs("compute_75", "sm_75") && runs("compute_75", "sm_90") && runs("compute_80", "sm_86"));
        assert!(!runs("compute_80", "sm_75"));
    }

    #[test]
    fn what_ptxas_says_is_read() {
        let said = "ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'a' for 'sm_80'
ptxas info    : Function properties for a
    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 144 registers, used 1 barriers, 44032 bytes smem, 416 bytes cmem[0]
ptxas info    : Compiling entry function 'b' for 'sm_80'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 16 registers, 380 bytes cmem[0]
";
        let expected = [("a", 144, 44032, 12), ("b", 16, 0, 0)];
        let expected = expected.map(|(kernel, registers, shared, spilled)| Usage {
            kernel: kernel.into(),
            registers,
            shared,
            spilled,
        });
        assert_eq!(usages(said), expected);
    }
}
