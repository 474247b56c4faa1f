//! The plan of a training step on a GPU, from the launches that a driver noted which ran none of them: how many blocks each
//! has, how many of them a multiprocessor holds, and what it costs at best. A count, no measurement.

mod cost;

use std::collections::BTreeMap;
use std::fmt::Write;

pub use cost::{Cost, cost};

/// Multiprocessors of an H100, to which all is related.
pub const MULTIPROCESSORS: u32 = 132;
/// What may be reached of it: multiply-adds in f32 (67 TFLOP/s, of which four fifths), tensor cores in bf16, memory.
const F32_FLOPS: f64 = 67e12 * 0.8;
const TENSOR_FLOPS: f64 = 550e12;
const BYTES: f64 = 2.8e12;
/// Seconds of a launch that does nothing.
const LAUNCH: f64 = 2e-6;
/// What is asked of `cifar10` at batch 128: launches of a step, seconds of their sum.
const LAUNCHES_ASKED: usize = 400;
const SECONDS_ASKED: f64 = 15e-3;
/// What a multiprocessor has: registers, bytes of shared memory (of which a block takes one KiB more than it asks for),
/// threads, blocks.
const REGISTERS: u32 = 65_536;
const SHARED: u32 = 228 * 1024;
const SHARED_OF_BLOCK: u32 = 1024;
const THREADS: u32 = 2048;
const BLOCKS: u32 = 32;

/// A launch as the stand-in driver noted it.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The kernel's name.
    pub kernel: String,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared: u32,
    /// Arguments, each in words of eight bytes.
    pub arguments: Vec<Vec<u64>>,
}

impl Launch {
    /// Reads a line of the note; nothing if it is not one.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let kernel = words.next()?.to_owned();
        let mut size = || words.next()?.parse::<u32>().ok();
        let (grid, block, shared) = ([size()?, size()?, size()?], [size()?, size()?, size()?], size()?);
        let argument = |text: &str| {
            let word = |i: usize| u64::from_str_radix(text.get(i..i + 16)?, 16).ok();
            (0..text.len()).step_by(16).map(word).collect::<Option<Vec<_>>>()
        };
        let arguments = words.map(argument).collect::<Option<_>>()?;
        Some(Self { kernel, grid, threads: block.iter().product(), shared, arguments })
    }

    /// Blocks in all.
    pub fn blocks(&self) -> u32 {
        self.grid.iter().product()
    }
}

/// What a kernel takes of a multiprocessor, as NVIDIA's assembler says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Registers of a thread.
    pub registers: u32,
    /// Static shared memory of a block, in bytes.
    pub shared: u32,
}

/// Reads the table of `docs/gpu.md`: the last architecture's registers.
pub fn usages(page: &str) -> BTreeMap<String, Usage> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split('|');
        let kernel = cells.next()?.trim().trim_end_matches('`').to_owned();
        let shared = cells.next()?.trim().parse().ok()?;
        let registers = cells.next()?.rsplit(',').next()?.trim().parse().ok()?;
        Some((kernel, Usage { registers, shared }))
    };
    page.lines().filter_map(row).collect()
}

/// A launch with what follows from it.
#[derive(Debug, Clone)]
pub struct Step {
    /// What was launched.
    pub launch: Launch,
    /// What it computes and moves.
    pub cost: Cost,
    /// Blocks that a multiprocessor holds at once.
    pub resident: u32,
    /// Seconds at best.
    pub seconds: f64,
}

impl Step {
    /// What follows from a launch of a known kernel.
    ///
    /// # Errors
    /// Names a kernel that is not in [`cost`] or in the table of registers.
    pub fn new(launch: Launch, usages: &BTreeMap<String, Usage>) -> Result<Self, String> {
        let unknown = |what: &str| format!("`{}` is not known in {what}", launch.kernel);
        let cost = cost(&launch).ok_or_else(|| unknown("tests/src/gpu_plan/cost.rs"))?;
        let usage = usages.get(&launch.kernel).ok_or_else(|| unknown("the table of docs/gpu.md"))?;
        // registers are given to warps, 256 at a time
        let warps = launch.threads.div_ceil(32);
        let registers = (usage.registers * 32).next_multiple_of(256) * warps;
        let shared = usage.shared + launch.shared + SHARED_OF_BLOCK;
        let resident = (REGISTERS / registers).min(SHARED / shared).min(THREADS / launch.threads).min(BLOCKS);
        let peak = if cost::products(&launch.kernel).is_some() { TENSOR_FLOPS } else { F32_FLOPS };
        let seconds = (cost.flops / peak).max(cost.bytes / BYTES) + LAUNCH;
        Ok(Self { launch, cost, resident, seconds })
    }

    /// How often the blocks fill the multiprocessors with one each.
    pub fn waves(&self) -> f64 {
        f64::from(self.launch.blocks()) / f64::from(MULTIPROCESSORS)
    }
}

/// Launches of a step.
#[derive(Debug, Clone)]
pub struct Plan {
    /// In their order.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Reads what a driver noted of two training steps or more, and keeps the last whole one: from behind one update of the
    /// parameters to the next.
    ///
    /// # Errors
    /// When there are no two updates, or a kernel is not known.
    pub fn of_last_step(notes: &str, usages: &BTreeMap<String, Usage>) -> Result<Self, String> {
        let launches: Vec<_> = notes.lines().filter_map(Launch::parse).collect();
        let ends: Vec<_> = (0..launches.len()).filter(|&i| launches[i].kernel.starts_with("adamw")).collect();
        let [.., before, last] = ends[..] else { return Err("there are no two training steps in the notes".into()) };
        let steps = launches[before + 1..=last].iter().map(|launch| Step::new(launch.clone(), usages));
        Ok(Self { steps: steps.collect::<Result<_, _>>()? })
    }

    /// Seconds at best.
    pub fn seconds(&self) -> f64 {
        self.steps.iter().map(|step| step.seconds).sum()
    }

    /// Launches that take more than a hundredth of the step, and leave multiprocessors without a block.
    pub fn idle(&self) -> Vec<&Step> {
        let much = self.seconds() / 100.0;
        self.steps.iter().filter(|step| step.seconds > much && step.waves() < 1.0).collect()
    }

    /// How far the plan is from what is asked of `cifar10` at batch 128: a sentence for each bound.
    pub fn bounds(&self) -> String {
        let (launches, ms, idle) = (self.steps.len(), self.seconds() * 1e3, self.idle().len());
        let far = |got: f64, asked: f64| {
            if got <= asked { "kept".to_owned() } else { format!("{:.2} times as many", got / asked) }
        };
        format!(
            "at most {LAUNCHES_ASKED} launches: {launches}, {}\n\
             at most {:.0} ms: {ms:.1}, {}\n\
             none above a hundredth of the sum with less than a wave: {idle}, {}\n",
            far(launches as f64, LAUNCHES_ASKED as f64),
            SECONDS_ASKED * 1e3,
            far(ms, SECONDS_ASKED * 1e3),
            if idle == 0 { "kept" } else { "not kept" },
        )
    }

    /// A table of kernels alone: launches, and what they take together, those that take most first.
    pub fn by_kernel(&self) -> String {
        let mut kernels: BTreeMap<&str, (usize, f64, f64)> = BTreeMap::new();
        for step in &self.steps {
            let of = kernels.entry(&step.launch.kernel).or_default();
            *of = (of.0 + 1, of.1 + step.cost.bytes, of.2 + step.seconds);
        }
        let mut rows: Vec<_> = kernels.into_iter().collect();
        rows.sort_by(|(_, a), (_, b)| b.2.total_cmp(&a.2));
        let mut text = format!("{:<34} {:>5} {:>8} {:>8} {:>6}\n", "kernel", "times", "GB", "ms", "%");
        for (kernel, (times, bytes, seconds)) in rows {
            let (gb, share) = (bytes / 1e9, 100.0 * seconds / self.seconds());
            let _ = writeln!(text, "{kernel:<34} {times:>5} {gb:>8.2} {:>8.2} {share:>6.1}", seconds * 1e3);
        }
        text
    }

    /// A table: launches that are alike share a line, those that take most first.
    pub fn table(&self) -> String {
        let mut alike: BTreeMap<_, (&Step, usize)> = BTreeMap::new();
        for step in &self.steps {
            let Launch { kernel, grid, shared, .. } = &step.launch;
            let key = (kernel.clone(), *grid, *shared, step.cost.flops as u64, step.cost.bytes as u64);
            alike.entry(key).or_insert((step, 0)).1 += 1;
        }
        let mut rows: Vec<_> = alike.into_values().collect();
        let of = |(step, count): &(&Step, usize)| step.seconds * *count as f64;
        rows.sort_by(|a, b| of(b).total_cmp(&of(a)));
        let total = self.seconds();
        let mut text = format!(
            "{:<30} {:>5} {:>16} {:>6} {:>9} {:>8} {:>8} {:>8} {:>6}\n",
            "kernel", "times", "blocks", "waves", "occupancy", "GFLOP", "MB", "us each", "%"
        );
        for row @ (step, count) in &rows {
            let [x, y, z] = step.launch.grid;
            let occupancy = 100.0 * f64::from(step.resident * step.launch.threads) / f64::from(THREADS);
            let _ = writeln!(
                text,
                "{:<30} {count:>5} {:>16} {:>6.1} {:>6.0} %{} {:>8.2} {:>8.1} {:>8.1} {:>6.2}",
                step.launch.kernel,
                format!("{x}x{y}x{z}"),
                step.waves(),
                occupancy,
                step.resident,
                step.cost.flops / 1e9,
                step.cost.bytes / 1e6,
                step.seconds * 1e6,
                100.0 * of(row) / total,
            );
        }
        let (flops, bytes) = self.steps.iter().fold((0.0, 0.0), |(f, b), s| (f + s.cost.flops, b + s.cost.bytes));
        let _ = writeln!(
            text,
            "{} launches, {:.2} TFLOP, {:.2} GB; at best {:.1} ms on {MULTIPROCESSORS} multiprocessors",
            self.steps.len(),
            flops / 1e12,
            bytes / 1e9,
            total * 1e3
        );
        text
    }
}
