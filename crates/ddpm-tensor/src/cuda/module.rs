use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaContext, result, sys};

use super::memory::CudaBuffer;
use super::{Cuda, failure};
use crate::TensorError;

/// Kernels that are compiled together: a name for messages, and their PTX.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// The operation's name, unlike any other's.
    pub name: &'static str,
    /// The PTX.
    pub ptx: &'static str,
}

/// Sizes of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block, in bytes, at most 48 KiB.
    pub shared: u32,
}

impl Launch {
    /// `count` threads in blocks of 256, but no more blocks than fill any GPU: kernels that are launched so stride.
    pub fn over(count: usize) -> Self {
        Self { grid: [count.div_ceil(256).clamp(1, 1 << 16) as u32, 1, 1], block: 256, shared: 0 }
    }
}

/// What a kernel is given, in its order.
#[derive(Debug, Default)]
pub struct Arguments {
    bytes: Vec<u64>,
    /// Where each begins in `bytes`, and its size in bytes.
    places: Vec<(usize, usize)>,
}

impl Arguments {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A number, or a struct of numbers as the kernel declares it.
    pub fn value<T: bytemuck::NoUninit>(mut self, value: T) -> Self {
        let (first, size) = (self.bytes.len(), size_of::<T>());
        self.bytes.resize(first + size.div_ceil(8), 0);
        bytemuck::cast_slice_mut(&mut self.bytes[first..])[..size].copy_from_slice(bytemuck::bytes_of(&value));
        self.places.push((first, size));
        self
    }

    /// The address of a buffer's element, to be read.
    pub fn input(self, buffer: &CudaBuffer, offset: usize) -> Self {
        self.value(buffer.address(offset))
    }

    /// The address of a buffer's element, to be read and written.
    pub fn output(self, buffer: &mut CudaBuffer, offset: usize) -> Self {
        self.value(buffer.address_to_write(offset))
    }
}

impl CudaBuffer {
    /// The device address of an element to be read, for a kernel's struct.
    pub fn address(&self, offset: usize) -> u64 {
        debug_assert!(offset <= self.len);
        self.pointer + (offset * size_of::<f32>()) as u64
    }

    /// The device address of an element to be written, for a kernel's struct.
    pub fn address_to_write(&mut self, offset: usize) -> u64 {
        self.written();
        self.address(offset)
    }
}

/// A loaded kernel.
#[derive(Debug, Clone)]
struct Kernel {
    function: sys::CUfunction,
    /// Sizes of its parameters, as the PTX declares them.
    sizes: Arc<[usize]>,
}

/// Modules that are loaded, each when a kernel of it is first asked for, and kept as long as the context.
pub(super) struct Modules {
    context: Arc<CudaContext>,
    kernels: Mutex<BTreeMap<(&'static str, &'static str), Kernel>>,
    loaded: Mutex<BTreeMap<&'static str, sys::CUmodule>>,
}

// SAFETY: modules and functions are handles that the driver lets any thread use whose current context is theirs.
unsafe impl Send for Modules {}
// SAFETY: as above; the maps are behind mutexes.
unsafe impl Sync for Modules {}

impl Modules {
    pub(super) fn new(context: Arc<CudaContext>) -> Self {
        Self { context, kernels: Mutex::default(), loaded: Mutex::default() }
    }

    /// Loads a module's PTX, or says why the driver does not; the context is current.
    fn module(&self, source: Source) -> Result<sys::CUmodule, TensorError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&module) = loaded.get(source.name) {
            return Ok(module);
        }
        let what = format!("loading the kernels of `{}`", source.name);
        let text = CString::new(source.ptx)
            .map_err(|_| TensorError::Cuda { what: what.clone(), code: "the PTX holds a zero".into() })?;
        // SAFETY: the text ends in zero and outlives the call; the context is current.
        let module = unsafe { result::module::load_data(text.as_ptr().cast()) }.map_err(|e| failure(&what, e))?;
        loaded.insert(source.name, module);
        Ok(module)
    }

    fn kernel(&self, source: Source, name: &'static str) -> Result<Kernel, TensorError> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = kernels.get(&(source.name, name)) {
            return Ok(kernel.clone());
        }
        let module = self.module(source)?;
        let missing = |code: &str| TensorError::Cuda {
            what: format!("finding the kernel `{name}` in `{}`", source.name),
            code: code.into(),
        };
        let sizes = parameter_sizes(source.ptx, name).ok_or_else(|| missing("its PTX does not declare it"))?;
        let c_name = CString::new(name).map_err(|_| missing("its name holds a zero"))?;
        // SAFETY: the module is loaded and never unloaded before the context ends.
        let function = unsafe { result::module::get_function(module, c_name) }
            .map_err(|e| failure(&format!("finding the kernel `{name}`"), e))?;
        let kernel = Kernel { function, sizes: sizes.into() };
        kernels.insert((source.name, name), kernel.clone());
        Ok(kernel)
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_err() {
            return;
        }
        for module in std::mem::take(&mut *self.loaded.lock().unwrap_or_else(PoisonError::into_inner)).into_values() {
            // SAFETY: loaded by `module`; the handle whose launches used it is gone. A refusal cannot be helped here.
            let _ = unsafe { result::module::unload(module) };
        }
    }
}

/// The sizes of a kernel's parameters as the PTX declares them: `.param .u64 x` or `.param .align 8 .b8 x[88]`.
fn parameter_sizes(ptx: &str, kernel: &str) -> Option<Vec<usize>> {
    let (_, rest) = ptx.split_once(&format!(".entry {kernel}("))?;
    let (list, _) = rest.split_once(')')?;
    let mut sizes = Vec::new();
    for line in list.lines().filter(|line| line.contains(".param")) {
        let line = line.trim().trim_end_matches(',');
        let size = if let Some((_, count)) = line.split_once('[') {
            count.trim_end_matches(']').parse().ok()?
        } else {
            let kind = line.split_whitespace().find(|w| *w != ".param" && w.starts_with('.'))?;
            kind.trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().ok()? / 8
        };
        sizes.push(size);
    }
    Some(sizes)
}

impl Cuda {
    /// Queues a kernel.
    ///
    /// # Errors
    /// When the driver does not load or launch it, or the arguments' sizes are not those that the PTX declares; names the
    /// kernel and the launch.
    ///
    /// # Safety
    /// The arguments must be what the kernel takes, in number, order and meaning: addresses of as many elements as it reads
    /// and writes there. Two addresses may name the same memory only where the kernel allows it.
    pub unsafe fn launch(
        &self,
        source: Source,
        kernel: &'static str,
        launch: Launch,
        arguments: &Arguments,
    ) -> Result<(), TensorError> {
        self.bind()?;
        let found = self.shared.modules.kernel(source, kernel)?;
        let what = || {
            let Launch { grid: [x, y, z], block, shared } = launch;
            format!("launching `{kernel}` with {x}x{y}x{z} blocks of {block} threads and {shared} bytes")
        };
        if arguments.places.iter().map(|place| place.1).ne(found.sizes.iter().copied()) {
            let got: Vec<_> = arguments.places.iter().map(|place| place.1).collect();
            let code = format!("it takes arguments of {:?} bytes, but {got:?} came", found.sizes);
            return Err(TensorError::Cuda { what: what(), code });
        }
        let mut pointers: Vec<*mut c_void> =
            arguments.places.iter().map(|&(first, _)| (&raw const arguments.bytes[first]).cast_mut().cast()).collect();
        let [x, y, z] = launch.grid;
        // SAFETY: the function's module is loaded, the pointers are to values of the sizes that the kernel declares, which
        // the driver copies before it returns; that they mean what the kernel takes is the caller's promise.
        unsafe {
            result::launch_kernel(
                found.function,
                (x, y, z),
                (launch.block, 1, 1),
                launch.shared,
                self.shared.stream.cu_stream(),
                &mut pointers,
            )
        }
        .map_err(|e| failure(&what(), e))?;
        if self.shared.synchronous {
            self.shared.stream.synchronize().map_err(|e| failure(&format!("after {}", what()), e))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, parameter_sizes};

    #[test]
    fn sizes_of_parameters_are_read_from_the_ptx() {
        let ptx = "
.visible .entry other(
\t.param .u64 other_param_0
)
.visible .entry conv(
\t.param .align 8 .b8 conv_param_0[88],
\t.param .u64 conv_param_1,
\t.param .f32 conv_param_2,
\t.param .u32 conv_param_3,
\t.param .f64 conv_param_4
)
{";
        assert_eq!(parameter_sizes(ptx, "conv"), Some(vec![88, 8, 4, 4, 8]));
        assert_eq!(parameter_sizes(ptx, "con"), None);
    }

    #[test]
    fn arguments_lie_at_multiples_of_eight() {
        let arguments = Arguments::new().value(1u32).value([2u64, 3]).value(4.0f32);
        assert_eq!(arguments.places, [(0, 4), (1, 16), (3, 4)]);
        assert_eq!(arguments.bytes, [1, 2, 3, 4.0f32.to_bits() as u64]);
    }
}
