//! NVIDIA GPUs through their driver alone: a context, one stream, pooled memory, kernels from PTX.

mod memory;
mod module;
mod probe;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;
use cudarc::driver::{CudaContext, CudaStream, DriverError, result};

use memory::Memory;
pub use memory::{CudaBuffer, Stale};
use module::Modules;
pub use module::{Arguments, Launch, Source};
pub use probe::{CudaInfo, probe};

use crate::{Device, Precision, Shape, TensorError};

/// The oldest capability for which kernels are compiled (Turing).
const OLDEST_CAPABILITY: (i32, i32) = (7, 5);

/// A handle of one GPU: its context, a stream of our own on which everything is queued in order, its memory pool and the
/// modules that were loaded.
#[derive(Clone)]
pub struct Cuda {
    shared: Arc<Shared>,
}

struct Shared {
    // dropped in this order: modules and memory are given back before the stream and the context end
    modules: Modules,
    memory: Arc<Memory>,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
    precision: Precision,
    info: DeviceInfo,
    /// `DDPM_CUDA_SYNC=1`: wait after each launch, so that a failure names its kernel.
    synchronous: bool,
}

/// What a GPU says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Major and minor compute capability.
    pub capability: (i32, i32),
    /// Bytes of memory.
    pub memory: usize,
    /// Number of multiprocessors.
    pub multiprocessors: usize,
}

impl DeviceInfo {
    /// Whether it has products of bf16: capability 8.0 (Ampere) or more.
    pub fn multiplies_bf16(&self) -> bool {
        self.capability >= (8, 0)
    }
}

/// A driver's refusal with what was asked of it.
fn failure(what: &str, error: DriverError) -> TensorError {
    let name = error.error_name().map_or_else(|_| format!("{:?}", error.0), |n| n.to_string_lossy().into_owned());
    let meaning = error.error_string().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    TensorError::Cuda { what: what.into(), code: format!("{name} ({meaning})") }
}

impl Cuda {
    /// Opens a GPU.
    ///
    /// # Errors
    /// [`TensorError::NoCuda`] with the reason in one line when there is no driver, an old one, no such GPU, or one below
    /// capability 7.5. Never panics.
    pub fn new(index: usize, precision: Precision) -> Result<Self, TensorError> {
        let found = probe()?;
        if index >= found.devices {
            return Err(TensorError::NoCuda(format!("there is no GPU {index}: this machine has {}", found.devices)));
        }
        let context = CudaContext::new(index).map_err(|e| failure(&format!("opening GPU {index}"), e))?;
        // SAFETY: all work goes to one stream, so no event need order anything; nothing is allocated yet.
        unsafe { context.disable_event_tracking() };
        let asking = |e| failure(&format!("asking GPU {index} what it is"), e);
        let multiprocessors = cudarc::driver::sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let info = DeviceInfo {
            index,
            name: context.name().map_err(asking)?,
            capability: context.compute_capability().map_err(asking)?,
            memory: context.total_mem().map_err(asking)?,
            multiprocessors: context.attribute(multiprocessors).map_err(asking)? as usize,
        };
        if info.capability < OLDEST_CAPABILITY {
            let (major, minor) = info.capability;
            let reason = format!("{} has compute capability {major}.{minor}, and 7.5 or more is needed", info.name);
            return Err(TensorError::NoCuda(reason));
        }
        let stream = context.new_stream().map_err(|e| failure("making a stream", e))?;
        Ok(Self {
            shared: Arc::new(Shared {
                modules: Modules::new(Arc::clone(&context)),
                memory: Arc::new(Memory::new(Arc::clone(&context), Arc::clone(&stream))),
                stream,
                context,
                precision,
                info,
                synchronous: std::env::var_os("DDPM_CUDA_SYNC").is_some_and(|v| v == "1"),
            }),
        })
    }

    /// What the GPU says of itself.
    pub fn info(&self) -> &DeviceInfo {
        &self.shared.info
    }

    /// How products are computed.
    pub fn precision(&self) -> Precision {
        self.shared.precision
    }

    /// Waits for everything that was queued.
    ///
    /// # Errors
    /// When something of it failed.
    pub fn synchronize(&self) -> Result<(), TensorError> {
        self.bind()?;
        self.shared.stream.synchronize().map_err(|e| failure("waiting for the GPU", e))
    }

    /// The highest number of bytes that this handle held at once, the pool's spare buffers included.
    pub fn peak_bytes(&self) -> usize {
        self.shared.memory.peak_bytes()
    }

    /// Makes the context this thread's.
    fn bind(&self) -> Result<(), TensorError> {
        self.shared.context.bind_to_thread().map_err(|e| failure("using the device", e))
    }

    /// A buffer that holds these values, of a type whose size is 4 or 8 bytes, as they are in memory.
    ///
    /// # Errors
    /// When the device has no memory left, or fails.
    pub fn upload_values<T: Pod>(&self, from: &[T]) -> Result<CudaBuffer, TensorError> {
        let floats: &[f32] = bytemuck::cast_slice(from);
        let mut buffer = self.alloc(floats.len())?;
        self.upload(floats, &mut buffer, 0)?;
        Ok(buffer)
    }

    /// The first `len` values of a type whose size is 4 or 8 bytes that a buffer holds.
    ///
    /// # Errors
    /// When it holds fewer, or the device fails.
    pub fn download_values<T: Pod>(&self, from: &CudaBuffer, len: usize) -> Result<Vec<T>, TensorError> {
        let mut values = vec![T::zeroed(); len];
        let floats: &mut [f32] = bytemuck::cast_slice_mut(&mut values);
        self.download(from, 0..floats.len(), floats)?;
        Ok(values)
    }
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cuda")
            .field("device", &self.shared.info)
            .field("precision", &self.shared.precision)
            .finish_non_exhaustive()
    }
}

/// Fails unless `range` lies within `len` elements.
fn within(operation: &'static str, range: &Range<usize>, len: usize) -> Result<(), TensorError> {
    if range.start <= range.end && range.end <= len {
        return Ok(());
    }
    Err(TensorError::Length { operation, shape: Shape::from([range.end]), expected: range.end, got: len })
}

impl Device for Cuda {
    type Elem = f32;
    type Buffer = CudaBuffer;

    fn alloc(&self, len: usize) -> Result<CudaBuffer, TensorError> {
        self.shared.memory.take(len)
    }

    fn zeros(&self, len: usize) -> Result<CudaBuffer, TensorError> {
        let buffer = self.alloc(len)?;
        if len > 0 {
            self.bind()?;
            // SAFETY: the buffer holds that many bytes.
            unsafe { result::memset_d8_async(buffer.pointer, 0, len * 4, self.shared.stream.cu_stream()) }
                .map_err(|e| failure(&format!("zeroing {len} elements"), e))?;
        }
        Ok(buffer)
    }

    fn len(buffer: &CudaBuffer) -> usize {
        buffer.len
    }

    fn upload(&self, from: &[f32], to: &mut CudaBuffer, offset: usize) -> Result<(), TensorError> {
        within("upload", &(offset..offset + from.len()), to.len)?;
        if from.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the range lies in the buffer. From pageable memory the driver has read all when the call returns.
        unsafe { result::memcpy_htod_async(to.address_to_write(offset), from, self.shared.stream.cu_stream()) }
            .map_err(|e| failure(&format!("copying {} elements to the GPU", from.len()), e))
    }

    fn download(&self, from: &CudaBuffer, range: Range<usize>, to: &mut [f32]) -> Result<(), TensorError> {
        within("download", &range, from.len)?;
        within("download", &(0..range.len()), to.len())?;
        within("download", &(0..to.len()), range.len())?;
        if range.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the range lies in the buffer, and `to` is as long; it is borrowed until the stream has been waited for.
        unsafe { result::memcpy_dtoh_async(to, from.address(range.start), self.shared.stream.cu_stream()) }
            .map_err(|e| failure(&format!("copying {} elements from the GPU", range.len()), e))?;
        self.synchronize()
    }

    fn copy(
        &self,
        from: &CudaBuffer,
        range: Range<usize>,
        to: &mut CudaBuffer,
        offset: usize,
    ) -> Result<(), TensorError> {
        within("copy", &range, from.len)?;
        within("copy", &(offset..offset + range.len()), to.len)?;
        if range.is_empty() {
            return Ok(());
        }
        self.bind()?;
        let (source, target) = (from.address(range.start), to.address_to_write(offset));
        // SAFETY: both ranges lie in their buffers, which are two.
        unsafe { result::memcpy_dtod_async(target, source, range.len() * 4, self.shared.stream.cu_stream()) }
            .map_err(|e| failure(&format!("copying {} elements on the GPU", range.len()), e))
    }
}
