use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
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
            return Ok(CudaBuffer::new(0, 0, len, self));
        }
        let mut state = self.state();
        let size = state.spare.range_mut(wanted..=wanted + wanted / 4).find(|(_, list)| !list.is_empty());
        if let Some((&bytes, list)) = size
            && let Some(pointer) = list.pop()
        {
            return Ok(CudaBuffer::new(pointer, bytes, len, self));
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
                Ok(CudaBuffer::new(pointer, wanted, len, self))
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

/// Floats on a GPU; goes back to the pool of its [`Cuda`](super::Cuda) when dropped, and with it what was [kept](Self::kept).
pub struct CudaBuffer {
    pub(super) pointer: sys::CUdeviceptr,
    bytes: usize,
    pub(super) len: usize,
    contents: u64,
    kept: Mutex<Vec<Kept>>,
    renewed: Mutex<Renewed>,
    memory: Arc<Memory>,
}

/// What was computed from a buffer's contents, under which name, and from which contents.
#[derive(Debug, Clone)]
struct Kept {
    key: Vec<u64>,
    made: Arc<CudaBuffer>,
    of: u64,
}

/// What is computed anew whenever its buffer was written, all of it together.
#[derive(Default)]
struct Renewed {
    all: Vec<Kept>,
    list: Option<Box<(Vec<u64>, CudaBuffer)>>,
}

/// What of a buffer is to be computed anew, and a place for a list of it on the device.
#[derive(Debug)]
pub struct Stale<'a> {
    /// Keys, and where what they name goes.
    pub all: Vec<(Vec<u64>, Arc<CudaBuffer>)>,
    list: &'a mut Option<Box<(Vec<u64>, CudaBuffer)>>,
}

impl Stale<'_> {
    /// These words on the device: copied there only if others were there last time.
    ///
    /// # Errors
    /// When the device has no memory left, or fails.
    pub fn list(&mut self, cuda: &super::Cuda, words: Vec<u64>) -> Result<&CudaBuffer, TensorError> {
        if self.list.as_ref().is_none_or(|known| known.0 != words) {
            *self.list = None;
        }
        if let Some(known) = self.list {
            return Ok(&known.1);
        }
        let buffer = cuda.upload_values(&words)?;
        Ok(&self.list.insert(Box::new((words, buffer))).1)
    }
}

impl CudaBuffer {
    fn new(pointer: sys::CUdeviceptr, bytes: usize, len: usize, memory: &Arc<Memory>) -> Self {
        let (kept, renewed) = (Mutex::default(), Mutex::default());
        Self { pointer, bytes, len, contents: next_contents(), kept, renewed, memory: Arc::clone(memory) }
    }

    /// A number that no other contents of any buffer have: it changes whenever the buffer may be written.
    pub fn contents(&self) -> u64 {
        self.contents
    }

    /// The buffer may be written from now on: what was computed from it is forgotten.
    pub(super) fn written(&mut self) {
        self.kept.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        // what nobody asked for since the buffer was last written will not be asked for soon
        let of = self.contents;
        self.renewed.get_mut().unwrap_or_else(PoisonError::into_inner).all.retain(|kept| kept.of == of);
        self.contents = next_contents();
    }

    /// What `make` computes from the buffer's contents; it is kept under the key, and given again, until the buffer is written or
    /// dropped. The key names all else that it depends on.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn kept<E>(&self, key: &[u64], make: impl FnOnce() -> Result<Self, E>) -> Result<Arc<Self>, E> {
        // `make` runs unlocked: it may ask for what else is kept of the same buffer
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept().iter().find(|kept| kept.key == key) {
            return Ok(Arc::clone(&found.made));
        }
        let made = Arc::new(make()?);
        kept().push(Kept { key: key.to_vec(), made: Arc::clone(&made), of: self.contents });
        Ok(made)
    }

    /// Like [`CudaBuffer::kept`], for what is needed again after each write: its memory stays, and the first that is asked for
    /// renews all. `alloc` makes room for what was not asked for before; `renew` computes all that is stale into its place.
    ///
    /// # Errors
    /// Those of `alloc` and `renew`.
    pub fn renewed<E>(
        &self,
        key: &[u64],
        alloc: impl FnOnce() -> Result<Self, E>,
        renew: impl FnOnce(Stale<'_>) -> Result<(), E>,
    ) -> Result<Arc<Self>, E> {
        let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        let Renewed { all, list } = &mut *renewed;
        let known = all.iter().position(|kept| kept.key == key);
        if known.is_none() {
            all.push(Kept { key: key.to_vec(), made: Arc::new(alloc()?), of: 0 });
        }
        let place = known.unwrap_or(all.len() - 1);
        if all[place].of != self.contents {
            let stale = all.iter().filter(|kept| kept.of != self.contents);
            let stale = stale.map(|kept| (kept.key.clone(), Arc::clone(&kept.made))).collect();
            renew(Stale { all: stale, list })?;
            for kept in all.iter_mut() {
                kept.of = self.contents;
            }
        }
        Ok(Arc::clone(&all[place].made))
    }
}

/// Numbers of contents: each but once.
fn next_contents() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
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
