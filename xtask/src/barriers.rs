//! `cargo xtask torture barriers`: every barrier of every kernel is taken out of the source in turn, and the build that sees
//! races must report one.
//!
//! `cargo test` asks the same with the barriers in place but without effect (`cuda_checked/barriers.rs`).

use crate::{kernels, repository};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

/// What orders threads.
const BARRIERS: [&str; 3] = ["__syncthreads();", "__syncwarp();", "wait_for_copies<STAGES - 2>();"];

/// A barrier in a file: the line's number, from 0.
struct Barrier {
    file: String,
    line: usize,
    text: String,
}

/// Takes away one barrier after the other; fails with those without which no race is reported.
pub(crate) fn run() -> Result<()> {
    let scratch = repository::root().join("target/torture-barriers");
    let all = barriers(&kernels::folder())?;
    let mut unnoticed = Vec::new();
    for (i, barrier) in all.iter().enumerate() {
        let folder = scratch.join(format!("{i}/kernels"));
        without(&kernels::folder(), barrier, &folder)?;
        let noticed = races(&folder)?;
        println!(
            "{} {}:{} {}",
            if noticed { "found   " } else { "UNNOTICED" },
            barrier.file,
            barrier.line + 1,
            barrier.text.trim()
        );
        if !noticed {
            unnoticed.push(format!("{}:{}", barrier.file, barrier.line + 1));
        }
        fs::remove_dir_all(scratch.join(i.to_string()))?;
    }
    ensure!(unnoticed.is_empty(), "no race is reported without the barriers at {}", unnoticed.join(", "));
    println!("without any one of {} barriers a race is reported", all.len());
    Ok(())
}

fn barriers(folder: &Path) -> Result<Vec<Barrier>> {
    let mut found = Vec::new();
    let mut files: Vec<_> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    for path in files.iter().filter(|path| path.extension().is_some_and(|e| e == "cu" || e == "cuh")) {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for (line, text) in fs::read_to_string(path)?.lines().enumerate() {
            if BARRIERS.iter().any(|barrier| text.contains(barrier)) {
                found.push(Barrier { file: file.clone(), line, text: text.to_owned() });
            }
        }
    }
    Ok(found)
}

/// A copy of the kernels in which one barrier is gone.
fn without(from: &Path, barrier: &Barrier, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if *name != *barrier.file {
            fs::copy(&path, to.join(name))?;
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for operation in BARRIERS {
            lines[barrier.line] = lines[barrier.line].replace(operation, ";");
        }
        fs::write(to.join(name), lines.join("\n") + "\n")?;
    }
    Ok(())
}

/// Whether these kernels race.
fn races(folder: &Path) -> Result<bool> {
    let mut command = repository::cargo();
    command.args(["test", "-q", "-p", "ddpm-kernels", "--test", "cuda_checked", "no_kernel_races"]);
    command.env("DDPM_KERNELS", folder);
    let output = command.output().context("running cargo test")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(!said.contains("could not compile"), "the kernels do not compile without that barrier:\n{said}");
    Ok(!output.status.success() && said.contains("and no barrier is between"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{barriers, without};
    use crate::kernels;
    use std::fs;

    #[test]
    fn one_barrier_is_gone_and_all_else_stays() {
        let all = barriers(&kernels::folder()).unwrap();
        assert!(all.len() > 10);
        let to = std::env::temp_dir().join(format!("ddpm-barriers-{}", std::process::id()));
        without(&kernels::folder(), &all[0], &to).unwrap();
        assert_eq!(barriers(&to).unwrap().len(), all.len() - 1);
        assert_eq!(fs::read_dir(&to).unwrap().count(), fs::read_dir(kernels::folder()).unwrap().count());
        fs::remove_dir_all(to).unwrap();
    }
}
