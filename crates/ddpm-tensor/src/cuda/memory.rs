use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, CudaStream, result, sys};

use super::failure;
use crate::TensorError;

/// Sizes of allocations are multiples of it: a vector, so that a whole one can always be read.
const GRAIN: usize = 16;

/// Device memory that was given back, by its size in bytes, kept for the next step.
///
/// Everything of a handle runs on its one stream, so memory that is given back while work on it is still queued may be
/// handed out at once: what uses it next is queued behind.
pub(super) struct Memory {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    spare: BTreeMap<usize, Vec<sys::CUdeviceptr>>,
    /// Bytes of all allocations, spare or not, now and at most.
    held: usize,
    peak: usize,
}

impl Memory {
    pub(super) fn new(context: Arc<CudaContext>, stream: Arc<CudaStream>) -> Self {
        Self { context, stream, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The smallest spare allocation that holds `len` floats and is at most a quarter larger, or a new one.
    pub(super) fn take(self: &Arc<Self>, len: usize) -> Result<CudaBuffer, TensorError> {
        let wanted = (len * size_of::<f32>()).next_multiple_of(GRAIN);
        if len == 0 {
            return Ok(CudaBuffer { pointer: 0, bytes: 0, len, memory: Arc::clone(self) });
        }
        let mut state = self.state();
        let size = state.spare.range_mut(wanted..=wanted + wanted / 4).find(|(_, list)| !list.is_empty());
        if let Some((&bytes, list)) = size
            && let Some(pointer) = list.pop()
        {
            return Ok(CudaBuffer { pointer, bytes, len, memory: Arc::clone(self) });
        }
        self.context.bind_to_thread().map_err(|e| failure("using the device", e))?;
        // SAFETY: the context is current, and the size is not zero.
        let mut allocated = unsafe { result::malloc_sync(wanted) };
        if matches!(allocated, Err(result::DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY))) {
            self.release(&mut state);
            // SAFETY: as above.
            allocated = unsafe { result::malloc_sync(wanted) };
        }
        match allocated {
            Ok(pointer) => {
                state.held += wanted;
                state.peak = state.peak.max(state.held);
                Ok(CudaBuffer { pointer, bytes: wanted, len, memory: Arc::clone(self) })
            }
            Err(result::DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let (free, total) = result::mem_get_info().unwrap_or((0, 0));
                Err(TensorError::CudaMemory { asked: wanted, free, total, held: state.held })
            }
            Err(error) => Err(failure(&format!("allocating {wanted} bytes"), error)),
        }
    }

    /// Returns spare memory to the driver, when nothing that is queued names it any more.
    fn release(&self, state: &mut State) {
        if state.spare.is_empty() {
            return;
        }
        if self.context.bind_to_thread().and_then(|()| self.stream.synchronize()).is_err() {
            return; // the device is lost, and its memory with it
        }
        for (bytes, list) in std::mem::take(&mut state.spare) {
            for pointer in list {
                // SAFETY: allocated by `take`, and spare: no buffer names it.
                if unsafe { result::free_sync(pointer) }.is_ok() {
                    state.held -= bytes;
                }
            }
        }
    }

    fn give_back(&self, pointer: sys::CUdeviceptr, bytes: usize) {
        self.state().spare.entry(bytes).or_default().push(pointer);
    }

    pub(super) fn peak_bytes(&self) -> usize {
        self.state().peak
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let mut state = std::mem::take(&mut *self.state());
        self.release(&mut state);
    }
}

/// Floats on a GPU; goes back to the pool of its [`Cuda`](super::Cuda) when dropped.
pub struct CudaBuffer {
    pub(super) pointer: sys::CUdeviceptr,
    bytes: usize,
    pub(super) len: usize,
    memory: Arc<Memory>,
}

impl Drop for CudaBuffer {
    fn drop(&mut self) {
        if self.pointer != 0 {
            self.memory.give_back(self.pointer, self.bytes);
        }
    }
}

impl fmt::Debug for CudaBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CudaBuffer({} elements)", self.len)
    }
}
