//! Compiles the kernels for the CPU, once for each run of the tests, and launches them by name.

use ddpm_kernels::ptx;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

/// The order in which the threads of a block take their turns, and the blocks of a grid.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Schedule {
    Forward,
    Reverse,
    /// Anew between any two barriers, from this seed.
    Shuffled(u32),
}

/// What every kernel is run under.
pub(crate) const SCHEDULES: [Schedule; 4] =
    [Schedule::Forward, Schedule::Reverse, Schedule::Shuffled(1), Schedule::Shuffled(2)];

/// Sizes and order of a launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) schedule: Schedule,
}

/// One argument of a kernel: its bytes, aligned for any type of eight bytes or less.
pub(crate) struct Argument {
    bytes: Vec<u64>,
    size: usize,
}

impl Argument {
    /// A number, or a struct of numbers.
    pub(crate) fn value<T: bytemuck::NoUninit>(value: T) -> Self {
        let size = size_of::<T>();
        let mut bytes = vec![0; size.div_ceil(8)];
        bytemuck::cast_slice_mut(&mut bytes)[..size].copy_from_slice(bytemuck::bytes_of(&value));
        Self { bytes, size }
    }

    /// A pointer, which the kernel may read.
    pub(crate) fn input<T>(slice: &[T]) -> Self {
        Self::value(slice.as_ptr() as usize)
    }

    /// A pointer, which the kernel may read and write.
    pub(crate) fn output<T>(slice: &mut [T]) -> Self {
        Self::value(slice.as_mut_ptr() as usize)
    }

    /// The bytes of an argument of eight bytes.
    pub(crate) fn as_u64(&self) -> u64 {
        self.bytes[0]
    }

    /// No pointer.
    pub(crate) fn null() -> Self {
        Self::value(0usize)
    }
}

type LaunchFn = unsafe extern "C" fn(
    *const c_char,
    *const u32,
    *const u32,
    *const *const c_void,
    *const usize,
    usize,
    c_int,
    u32,
) -> *const c_char;

type SetFn = unsafe extern "C" fn(*const c_char, std::ffi::c_long);

struct Host {
    launch: LaunchFn,
    set: SetFn,
    /// Keeps the functions mapped.
    _library: libloading::Library,
}

static HOST: LazyLock<Host> = LazyLock::new(Host::build);

/// The kernels behind a driver's functions: a device that the whole way from [`Cuda`](ddpm_tensor::Cuda) on leads to.
///
/// The library that was built calls itself `libcuda.so`, and what is loaded under a name is not looked for again.
pub(crate) fn gpu() -> ddpm_tensor::Cuda {
    LazyLock::force(&HOST);
    ddpm_tensor::Cuda::new(0, ddpm_tensor::Precision::Strict).unwrap()
}

/// Asks something of this thread's stand-in driver: see `Settings` in `host/driver.cpp`.
pub(crate) fn ask(name: &str, value: i64) {
    let name = CString::new(name).expect("a setting's name holds no zero");
    // SAFETY: the name ends in zero and outlives the call.
    unsafe { (HOST.set)(name.as_ptr(), value) };
}

/// The order in which the stand-in driver runs a launch.
pub(crate) fn ask_for(schedule: Schedule) {
    let (order, seed) = schedule.numbers();
    ask("schedule", order.into());
    ask("seed", seed.into());
}

impl Schedule {
    fn numbers(self) -> (c_int, u32) {
        match self {
            Schedule::Forward => (0, 0),
            Schedule::Reverse => (1, 0),
            Schedule::Shuffled(seed) => (2, seed),
        }
    }
}

/// Runs a kernel to its end; the error is what the harness found wrong with it.
///
/// # Safety
/// The arguments must be the kernel's, and what it reads and writes through them must be there.
pub(crate) unsafe fn launch(kernel: &str, launch: Launch, arguments: &[Argument]) -> Result<(), String> {
    let name = CString::new(kernel).expect("a kernel's name holds no zero");
    let pointers: Vec<_> = arguments.iter().map(|a| a.bytes.as_ptr().cast::<c_void>()).collect();
    let sizes: Vec<_> = arguments.iter().map(|a| a.size).collect();
    let (order, seed) = launch.schedule.numbers();
    // SAFETY: pointers, sizes and their number belong together and outlive the call; the library compares the sizes
    // with the kernel's own; the rest is the caller's promise.
    let error = unsafe {
        (HOST.launch)(
            name.as_ptr(),
            launch.grid.as_ptr(),
            launch.block.as_ptr(),
            pointers.as_ptr(),
            sizes.as_ptr(),
            sizes.len(),
            order,
            seed,
        )
    };
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: not null, so a message that ends in zero and lives until this thread's next launch.
    Err(unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned())
}

/// The kernels of `host/planted.cu`.
const PLANTED: [&str; 6] =
    ["reverse", "reverse_without_barrier", "chain_of_blocks", "sum_block", "deadlock", "divergent_barrier"];

impl Host {
    fn build() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let host = here.join("tests/cuda_on_cpu/host");
        let kernels = here.join("../../kernels");
        // Below cargo's target directory; removed again at the end, when the library is mapped.
        let work = tempfile::Builder::new().prefix("cuda_on_cpu-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut sources = vec![host.join("scheduler.cpp"), host.join("launch.cpp"), host.join("driver.cpp")];
        let mut add_unit = |name: &str, exports: &[&str]| {
            let mut unit = format!("#include \"cuda_on_cpu.h\"\n#include \"{name}.cu\"\n");
            for kernel in exports {
                writeln!(unit, "CUDA_ON_CPU_EXPORT({kernel})").unwrap();
            }
            let path = work.path().join(format!("{name}.cpp"));
            std::fs::write(&path, unit).unwrap();
            sources.push(path);
        };
        add_unit("planted", &PLANTED);
        for module in ptx::ALL {
            add_unit(module.name, module.kernels);
        }
        add_unit("philox_probe", &["philox_probe"]);
        let library = work.path().join("libcuda_on_cpu.so");
        let compiler = compiler();
        // -ffp-contract=off is what --fmad=false is to NVRTC: no product and sum become an fma that is not written.
        let mut options = vec!["-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"];
        options.extend(["-fno-math-errno", "-Wall", "-Wno-unknown-pragmas"]);
        // Without it fmaf is the C library's, as exact and slow.
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("fma") {
            options.push("-mfma");
        }
        let run = |arguments: &[&std::ffi::OsStr]| {
            let mut command = Command::new(&compiler);
            command.args(&options).arg("-I").arg(&host).arg("-I").arg(&kernels).args(arguments);
            let result = command.output().unwrap_or_else(|error| panic!("running {compiler}: {error}"));
            assert!(
                result.status.success(),
                "{compiler} could not compile the CUDA kernels for the CPU:\n{}",
                String::from_utf8_lossy(&result.stderr)
            );
        };
        // units side by side: they take as long as all the tests
        let next = std::sync::atomic::AtomicUsize::new(0);
        let objects: Vec<_> = (0..sources.len()).map(|i| work.path().join(format!("{i}.o"))).collect();
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while let Some(i) =
                        Some(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)).filter(|&i| i < sources.len())
                    {
                        run(&["-c".as_ref(), sources[i].as_os_str(), "-o".as_ref(), objects[i].as_os_str()]);
                    }
                });
            }
        });
        let mut link: Vec<&std::ffi::OsStr> = vec!["-shared".as_ref(), "-Wl,-soname,libcuda.so".as_ref()];
        link.extend(objects.iter().map(|object| object.as_os_str()));
        link.extend(["-o".as_ref(), library.as_os_str()]);
        run(&link);
        // SAFETY: the library was made above; all it does while it is loaded is to register kernels.
        let library = unsafe { libloading::Library::new(&library) }.unwrap();
        // SAFETY: `host/launch.cpp` defines the function with this signature.
        let launch = *unsafe { library.get::<LaunchFn>(b"cuda_on_cpu_launch\0") }.unwrap();
        // SAFETY: `host/driver.cpp` defines the function with this signature.
        let set = *unsafe { library.get::<SetFn>(b"cuda_on_cpu_set\0") }.unwrap();
        Self { launch, set, _library: library }
    }
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
