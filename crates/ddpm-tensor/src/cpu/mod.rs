//! The CPU: its memory, its instruction sets, its threads.

pub mod disjoint;
mod frozen;
pub mod isa;
mod memory;
mod places;
mod stopwatch;
mod threads;

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

pub use frozen::Form;
pub use memory::CpuBuffer;
use memory::Memory;

use crate::{Device, Element, Isa, Precision, Shape, TensorError};

/// A handle of the CPU: threads, instruction set, precision and the memory kept between steps.
#[derive(Clone)]
pub struct Cpu<T: Element = f32> {
    shared: Arc<Shared>,
    element: PhantomData<T>,
}

struct Shared {
    threads: threads::Threads,
    isa: Isa,
    precision: Precision,
    memory: Arc<Memory>,
    stopwatch: stopwatch::Stopwatch,
}

/// What to use of the CPU.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuOptions {
    /// Number of threads; as many as there are processors if not given. No result depends on it.
    pub threads: Option<usize>,
    /// Instruction set; the best that the machine has if not given.
    pub isa: Option<Isa>,
    /// How products are computed.
    pub precision: Precision,
}

impl<T: Element> Cpu<T> {
    /// A handle with its own threads and memory.
    ///
    /// # Errors
    /// [`TensorError::Threads`] when there are 0 of them or the system refuses.
    pub fn new(options: CpuOptions) -> Result<Self, TensorError> {
        Self::with(options, Memory::default())
    }

    /// A handle that rehearses: operations run as far as they must to show what memory they take, which is counted and hardly
    /// touched, and of what they share among threads only the first job is done. Their results are meaningless.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn rehearsal(options: CpuOptions) -> Result<Self, TensorError> {
        Self::with(options, Memory::rehearsed())
    }

    fn with(options: CpuOptions, memory: Memory) -> Result<Self, TensorError> {
        Ok(Self {
            shared: Arc::new(Shared {
                threads: threads::Threads::new(options.threads)?,
                isa: options.isa.unwrap_or_else(Isa::detect),
                precision: options.precision,
                memory: Arc::new(memory),
                stopwatch: stopwatch::Stopwatch::default(),
            }),
            element: PhantomData,
        })
    }

    /// Instruction set that operations use.
    pub fn isa(&self) -> Isa {
        self.shared.isa
    }

    /// How products are computed.
    pub fn precision(&self) -> Precision {
        self.shared.precision
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.shared.threads.count()
    }

    /// Runs `job(0)` … `job(count − 1)`, in any order and at the same time, and waits for all.
    ///
    /// `nanoseconds` is a rough guess for all of them: what is too short to share runs on this thread.
    pub fn parallel(&self, count: usize, nanoseconds: usize, job: impl Fn(usize) + Send + Sync) {
        if self.shared.memory.is_rehearsed() {
            if count > 0 {
                let threads = self.shared.threads.at_once(count, nanoseconds);
                self.shared.memory.rehearse(threads, || job(0));
            }
            return;
        }
        self.shared.threads.run(count, nanoseconds, job);
    }

    /// Runs an operation and remembers how long it took.
    pub fn timed<R>(&self, operation: &'static str, run: impl FnOnce() -> R) -> R {
        self.shared.stopwatch.time(operation, run)
    }

    /// How often each kind of operation was [`timed`](Self::timed) so far, and how long all of them took.
    pub fn times(&self) -> Vec<(&'static str, u64, std::time::Duration)> {
        self.shared.stopwatch.times()
    }

    /// A pooled buffer with unspecified values; the CPU's allocation cannot fail short of aborting.
    pub fn scratch(&self, len: usize) -> CpuBuffer<T> {
        self.shared.memory.take(len)
    }

    /// A pooled buffer of zeros.
    pub fn zeroed(&self, len: usize) -> CpuBuffer<T> {
        let mut buffer = self.scratch(len);
        // pages of a rehearsal are zeros already
        if !self.shared.memory.is_rehearsed() {
            buffer.fill(T::ZERO);
        }
        buffer
    }

    /// How often memory was asked of the system so far: constant once training has warmed up.
    pub fn system_allocations(&self) -> usize {
        self.shared.memory.system_allocations()
    }

    /// The highest number of bytes that this handle held at once, with the gaps between them.
    pub fn peak_bytes(&self) -> usize {
        self.shared.memory.peak_bytes()
    }
}

impl<T: Element> fmt::Debug for Cpu<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cpu")
            .field("threads", &self.threads())
            .field("isa", &self.isa())
            .field("precision", &self.precision())
            .finish_non_exhaustive()
    }
}

fn fit(operation: &'static str, expected: usize, got: usize) -> Result<(), TensorError> {
    if expected == got {
        Ok(())
    } else {
        Err(TensorError::Length { operation, shape: Shape::from([expected]), expected, got })
    }
}

impl<T: Element> Device for Cpu<T> {
    type Elem = T;
    type Buffer = CpuBuffer<T>;

    fn alloc(&self, len: usize) -> Result<CpuBuffer<T>, TensorError> {
        Ok(self.scratch(len))
    }

    fn zeros(&self, len: usize) -> Result<CpuBuffer<T>, TensorError> {
        Ok(self.zeroed(len))
    }

    fn len(buffer: &CpuBuffer<T>) -> usize {
        buffer.len()
    }

    fn upload(&self, from: &[T], to: &mut CpuBuffer<T>, offset: usize) -> Result<(), TensorError> {
        let room = to.len().saturating_sub(offset);
        let Some(to) = to.get_mut(offset..offset + from.len()) else {
            return fit("upload", from.len(), room);
        };
        to.copy_from_slice(from);
        Ok(())
    }

    fn download(&self, from: &CpuBuffer<T>, range: Range<usize>, to: &mut [T]) -> Result<(), TensorError> {
        fit("download", range.len(), to.len())?;
        let from = from.get(range.clone()).ok_or(TensorError::Length {
            operation: "download",
            shape: Shape::from([range.end]),
            expected: range.end,
            got: from.len(),
        })?;
        to.copy_from_slice(from);
        Ok(())
    }

    fn copy(
        &self,
        from: &CpuBuffer<T>,
        range: Range<usize>,
        to: &mut CpuBuffer<T>,
        offset: usize,
    ) -> Result<(), TensorError> {
        let from = from.get(range.clone()).ok_or(TensorError::Length {
            operation: "copy",
            shape: Shape::from([range.end]),
            expected: range.end,
            got: from.len(),
        })?;
        self.upload(from, to, offset)
    }

    fn freeze(buffer: &CpuBuffer<T>) {
        buffer.freeze();
    }

    fn thaw(buffer: &CpuBuffer<T>) {
        buffer.thaw();
    }
}
