//! What the kernels' accesses cost: sectors of memory and conflicts of banks, against the least that the same bytes need.
//!
//! What costs more stands in a table of `docs/gpu.md` with its reason, and nothing else may.

use crate::checker::{Count, counts};
use crate::grid::{Back, Case, Conv, devices};
use ddpm_kernels::conv::{Geometry, Padding};
use std::collections::BTreeMap;
use std::fmt::Write;

const CONV: Conv =
    Conv { n: 1, h: 16, w: 16, c: [32, 0], o: 64, g: Geometry::THREE, groups: 8, enlarge: false, back: Back::Both };

/// Shapes as networks have them: channels in multiples of 32, rows of 16 pixels and less.
fn shapes() -> [Case; 8] {
    [
        Case::Conv(CONV),
        Case::Conv(Conv { n: 2, h: 8, w: 8, c: [32, 32], ..CONV }),
        Case::Conv(Conv { n: 4, h: 4, w: 4, enlarge: true, ..CONV }),
        Case::Conv(Conv { g: Geometry::down(Padding::Same), groups: 0, ..CONV }),
        Case::Conv(Conv { g: Geometry::ONE, ..CONV }),
        Case::Attention { n: 1, pixels: 256, channels: 64, heads: 1 },
        Case::Sums { n: 16, pixels: 16, channels: 256 },
        Case::Elements { n: 2, elements: 3072, parameters: 1 << 16 },
    ]
}

/// The share of a kernel's sectors or wavefronts that an access must have to count.
const SHARE: f64 = 0.01;
/// How far from the least an access may be.
const SECTORS: f64 = 1.1;

/// Accesses of one kind by one line, unrolled or not.
#[derive(Debug, Clone)]
struct Access {
    kernel: String,
    kind: String,
    place: String,
    cost: f64,
    ideal: f64,
    worst: u64,
    share: f64,
}

impl Access {
    fn ratio(&self) -> f64 {
        self.cost / self.ideal
    }

    fn is_wasteful(&self) -> bool {
        self.ratio() > SECTORS || self.worst > 1
    }
}

fn accesses(counts: &[Count]) -> Vec<Access> {
    let mut totals: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    let mut all: BTreeMap<(&str, &str, &str), Access> = BTreeMap::new();
    for c in counts {
        let memory = c.kind.split(' ').next().unwrap();
        *totals.entry((&c.kernel, memory)).or_default() += c.cost as f64;
        let (kernel, kind, place) = (c.kernel.clone(), c.kind.clone(), c.place.clone());
        let none = Access { kernel, kind, place, cost: 0.0, ideal: 0.0, worst: 0, share: 0.0 };
        let access = all.entry((&c.kernel, &c.kind, &c.place)).or_insert(none);
        access.cost += c.cost as f64;
        access.ideal += c.ideal as f64;
        access.worst = access.worst.max(c.worst);
    }
    let mut all: Vec<_> = all.into_values().collect();
    for access in &mut all {
        let memory = access.kind.split(' ').next().unwrap();
        access.share = access.cost / totals[&(access.kernel.as_str(), memory)];
    }
    all
}

/// A row of the table: kernels, kind of access, a function in whose line it is, how many times the least it costs at most.
#[derive(Debug)]
struct Exception {
    kernels: Vec<String>,
    kind: String,
    function: String,
    at_most: f64,
}

impl Exception {
    fn covers(&self, a: &Access) -> bool {
        let is_in = |function: &str| function.split(['<', ' ']).next() == Some(&self.function);
        (self.kernels.is_empty() || self.kernels.contains(&a.kernel))
            && a.kind == self.kind
            && a.place.split(" < ").any(is_in)
            && a.ratio() <= self.at_most + 0.005
            && a.worst as f64 <= self.at_most
    }
}

fn exceptions() -> Vec<Exception> {
    let page = include_str!("../../../../docs/gpu.md");
    let (_, table) = page.split_once("| kernel | access | in | times the least | why |").unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
        assert!(cells.len() == 5 && !cells[4].is_empty(), "{line}");
        let kernels = if cells[0] == "all" { Vec::new() } else { cells[0].split(", ").map(str::to_owned).collect() };
        Exception { kernels, kind: cells[1].clone(), function: cells[2].clone(), at_most: cells[3].parse().unwrap() }
    };
    rows.map(row).collect()
}

#[test]
fn hot_loops_waste_nothing() {
    let gpus = devices();
    let run = || gpus.iter().for_each(|gpu| shapes().iter().for_each(|case| case.run(gpu)));
    let all = accesses(&counts(run));
    let exceptions = exceptions();
    let mut used = vec![false; exceptions.len()];
    let mut wasteful = String::new();
    for a in all.iter().filter(|a| a.share >= SHARE && a.is_wasteful()) {
        if let Some(i) = exceptions.iter().position(|e| e.covers(a)) {
            used[i] = true;
            continue;
        }
        let (ratio, share) = (a.ratio(), 100.0 * a.share);
        let Access { kernel, kind, place, worst, .. } = a;
        let _ = writeln!(wasteful, "{kernel}: {kind} {ratio:.2} {worst}, {share:.1} % of the kernel's: {place}");
    }
    assert!(wasteful.is_empty(), "times the least, worst conflict:\n{wasteful}");
    let stale: Vec<_> = exceptions.iter().zip(used).filter(|(_, used)| !used).map(|(e, _)| e).collect();
    assert!(stale.is_empty(), "nothing needs these exceptions any more: {stale:#?}");
}
