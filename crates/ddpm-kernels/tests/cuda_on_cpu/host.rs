//! Launches the kernels on the CPU: by name, or behind the stand-in driver.

use crate::{driver_folder, stand_in};
use ddpm_tensor::{Cuda, Precision};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
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

static HOST: LazyLock<Host> = LazyLock::new(Host::load);

/// The kernels behind a driver's functions: a device that the whole way from [`Cuda`] on leads to.
///
/// The library that was built calls itself `libcuda.so`, and what is loaded under a name is not looked for again.
pub(crate) fn gpu() -> Cuda {
    gpu_in(Precision::Strict)
}

/// The same, computing in another precision.
pub(crate) fn gpu_in(precision: Precision) -> Cuda {
    LazyLock::force(&HOST);
    Cuda::new(0, precision).unwrap()
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

impl Host {
    fn load() -> Self {
        let library = driver_folder().join(stand_in::LIBRARY);
        // SAFETY: the library was made above; all it does while it is loaded is to register kernels.
        let library = unsafe { libloading::Library::new(&library) }.unwrap();
        // SAFETY: `host/launch.cpp` defines the function with this signature.
        let launch = *unsafe { library.get::<LaunchFn>(b"cuda_on_cpu_launch\0") }.unwrap();
        // SAFETY: `host/driver.cpp` defines the function with this signature.
        let set = *unsafe { library.get::<SetFn>(b"cuda_on_cpu_set\0") }.unwrap();
        Self { launch, set, _library: library }
    }
}
