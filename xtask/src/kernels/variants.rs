//! What the compiler makes of one source, from run to run.
//!
//! NVRTC 11.8 orders some of its work by addresses in memory, so that the registers of a large kernel can have other names
//! the next time; the code is the same otherwise. So PTX is compared kernel by kernel with what several runs give.

use anyhow::Result;
use std::collections::BTreeMap;

/// Runs of the compiler whose most common text of each kernel is kept.
const RUNS: usize = 7;
/// Runs of the compiler at most until every kernel has been seen as it was kept.
const TRIES: usize = 60;

/// What stands before the kernels, then the kernels.
fn parts(ptx: &str) -> Vec<&str> {
    const ENTRY: &str = ".visible .entry ";
    let starts = std::iter::once(0).chain(ptx.match_indices(ENTRY).map(|(at, _)| at));
    let ends = ptx.match_indices(ENTRY).map(|(at, _)| at).chain([ptx.len()]);
    starts.zip(ends).map(|(start, end)| &ptx[start..end]).collect()
}

/// The PTX of each kernel that the compiler gives most often.
pub(super) fn most_common(compile: impl Fn() -> Result<String>) -> Result<String> {
    let first = compile()?;
    let mut seen: Vec<BTreeMap<String, usize>> = vec![BTreeMap::new(); parts(&first).len()];
    let mut texts = vec![first];
    for _ in 1..RUNS {
        texts.push(compile()?);
    }
    for text in &texts {
        for (seen, part) in seen.iter_mut().zip(parts(text)) {
            *seen.entry(part.to_owned()).or_default() += 1;
        }
    }
    Ok(seen.into_iter().filter_map(|texts| texts.into_iter().max_by_key(|text| text.1)).map(|text| text.0).collect())
}

/// Whether the compiler gives each kernel of this PTX, in one run or another.
pub(super) fn gives(ptx: &str, compile: impl Fn() -> Result<String>) -> Result<bool> {
    let wanted = parts(ptx);
    let mut seen = vec![false; wanted.len()];
    for _ in 0..TRIES {
        let text = compile()?;
        let got = parts(&text);
        if got.len() != wanted.len() {
            return Ok(false);
        }
        for (seen, (got, wanted)) in seen.iter_mut().zip(got.iter().zip(&wanted)) {
            *seen |= got == wanted;
        }
        if seen.iter().all(|&seen| seen) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{gives, most_common};
    use std::cell::Cell;

    /// A compiler that gives two kernels, each in two ways by turns of its own.
    fn compiler() -> impl Fn() -> anyhow::Result<String> {
        let run = Cell::new(0);
        move || {
            let n = run.replace(run.get() + 1);
            let (a, b) = (if n % 3 == 1 { "rare" } else { "common" }, if n % 4 == 2 { "rare" } else { "common" });
            Ok(format!("head\n.visible .entry a(\n{a}\n.visible .entry b(\n{b}\n"))
        }
    }

    #[test]
    fn each_kernel_is_taken_as_it_is_most_often() {
        let kept = most_common(compiler()).unwrap();
        assert_eq!(kept, "head\n.visible .entry a(\ncommon\n.visible .entry b(\ncommon\n");
    }

    #[test]
    fn a_kernel_that_no_run_gives_is_found() {
        let text = |a: &str, b: &str| format!("head\n.visible .entry a(\n{a}\n.visible .entry b(\n{b}\n");
        assert!(gives(&text("rare", "rare"), compiler()).unwrap());
        assert!(gives(&text("common", "rare"), compiler()).unwrap());
        assert!(!gives(&text("common", "other"), compiler()).unwrap());
        assert!(!gives("head\n.visible .entry a(\ncommon\n", compiler()).unwrap());
        assert!(!gives(&text("common", "rare").replace("head", "other"), compiler()).unwrap());
    }
}
