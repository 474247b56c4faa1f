//! What the checked build found, each call for the calling thread.

use crate::{driver_folder, host, stand_in};
use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::LazyLock;

struct Checker {
    races: unsafe extern "C" fn() -> *const c_char,
    counts: unsafe extern "C" fn() -> *const c_char,
    barriers: unsafe extern "C" fn() -> *const c_char,
    count: unsafe extern "C" fn(c_int),
    ignore: unsafe extern "C" fn(*const c_char),
    /// Keeps the functions mapped.
    _library: libloading::Library,
}

static CHECKER: LazyLock<Checker> = LazyLock::new(|| {
    drop(host::gpu());
    let path = driver_folder().join(stand_in::LIBRARY);
    // SAFETY: the library is loaded already; all that loading does is to register kernels.
    let library = unsafe { libloading::Library::new(path) }.unwrap();
    // SAFETY: `host/callbacks.cpp` defines the functions with these signatures.
    unsafe {
        Checker {
            races: *library.get(b"cuda_on_cpu_races\0").unwrap(),
            counts: *library.get(b"cuda_on_cpu_counts\0").unwrap(),
            barriers: *library.get(b"cuda_on_cpu_barriers\0").unwrap(),
            count: *library.get(b"cuda_on_cpu_count\0").unwrap(),
            ignore: *library.get(b"cuda_on_cpu_ignore\0").unwrap(),
            _library: library,
        }
    }
});

fn lines(ask: unsafe extern "C" fn() -> *const c_char) -> Vec<String> {
    // SAFETY: the functions give text that ends in zero and stays until this thread asks again.
    let text = unsafe { CStr::from_ptr(ask()) }.to_string_lossy();
    text.lines().map(str::to_owned).collect()
}

/// Races and reads of unwritten shared memory since this was last asked, one sentence each.
pub(crate) fn races() -> Vec<String> {
    lines(CHECKER.races)
}

/// The barriers that were passed: `file:line operation`.
pub(crate) fn barriers() -> Vec<String> {
    lines(CHECKER.barriers)
}

/// From now on one barrier, `file:line`, is waited at but orders nothing, as if it were not there.
pub(crate) fn ignore(barrier: &str) {
    let barrier = CString::new(barrier).unwrap();
    // SAFETY: the text ends in zero and outlives the call.
    unsafe { (CHECKER.ignore)(barrier.as_ptr()) };
}

/// What the accesses of one place cost.
#[derive(Debug, Clone)]
pub(crate) struct Count {
    pub(crate) kernel: String,
    /// `global load`, `shared store` and so on.
    pub(crate) kind: String,
    /// Functions and lines, the innermost first: `vector_at tile.cuh:52 < multiply tile.cuh:73 < conv_f32 conv.cu:130`.
    pub(crate) place: String,
    pub(crate) requests: u64,
    /// Sectors of 32 bytes in global memory, wavefronts of shared memory; and the least that the same bytes need.
    pub(crate) cost: u64,
    pub(crate) ideal: u64,
    /// The worst conflict of banks; 0 for global memory.
    pub(crate) worst: u64,
}

/// Counts the accesses that `run` makes, by place.
pub(crate) fn counts(run: impl FnOnce()) -> Vec<Count> {
    // SAFETY: takes a number.
    let count = |on| unsafe { (CHECKER.count)(on) };
    count(1);
    run();
    count(0);
    let parse = |line: String| {
        let fields: Vec<_> = line.split('\t').collect();
        let number = |i: usize| fields[i].parse().unwrap();
        Count {
            kernel: fields[0].into(),
            kind: format!("{} {}", fields[1], fields[2]),
            place: fields[3].into(),
            requests: number(4),
            cost: number(5),
            ideal: number(6),
            worst: number(7),
        }
    };
    lines(CHECKER.counts).into_iter().map(parse).collect()
}
