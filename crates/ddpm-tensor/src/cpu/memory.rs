use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frozen::{Form, Kept};
use super::places::{Place, Places};
use crate::Element;

/// Bytes of a cache line: buffers begin at a multiple of it, which AVX-512 and AMX loads want.
const LINE: usize = 64;
/// Bytes of a huge page.
#[cfg(target_os = "linux")]
const HUGE: usize = 2 << 20;

/// Whole cache lines of the system's memory, zeros at first.
struct Lines {
    allocated: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its memory, as a vector does.
unsafe impl Send for Lines {}
// SAFETY: nothing is read or written through a shared reference to it.
unsafe impl Sync for Lines {}

impl Lines {
    /// At least one line.
    fn zeroed(count: usize) -> Self {
        // The system hands out fresh pages of zeros without touching them, but not if it is asked to align them.
        let bytes = count.saturating_add(1).saturating_mul(LINE);
        let Ok(layout) = Layout::from_size_align(bytes, 16) else {
            handle_alloc_error(Layout::new::<u8>());
        };
        // SAFETY: the layout has a size above zero.
        let allocated = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        Self { allocated, layout }
    }

    /// Asks for pages of 2 MB, where the system has them: products walk over more of 4 KB than the CPU keeps addresses of.
    fn in_huge_pages(self) -> Self {
        #[cfg(target_os = "linux")]
        {
            let skipped = self.allocated.addr().get().wrapping_neg() % HUGE;
            let length = self.layout.size().saturating_sub(skipped) / HUGE * HUGE;
            if length > 0 {
                // SAFETY: the range is within the allocation; the advice changes no byte, and may be refused.
                unsafe { libc::madvise(self.allocated.add(skipped).as_ptr().cast(), length, libc::MADV_HUGEPAGE) };
            }
        }
        self
    }

    /// Where `count` lines begin that are all within these.
    fn from(&self, line: usize, count: usize) -> NonNull<u8> {
        let skipped = self.allocated.addr().get().wrapping_neg() % LINE;
        let end = skipped + (line + count) * LINE;
        assert!(end <= self.layout.size(), "{count} lines from {line} of {} bytes", self.layout.size());
        // SAFETY: it is within the allocation, as was just asserted.
        unsafe { self.allocated.add(skipped + line * LINE) }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and given back once.
        unsafe { dealloc(self.allocated.as_ptr(), self.layout) }
    }
}

/// Memory that is asked of the system in slabs, and kept for the next step.
#[derive(Default)]
pub(super) struct Memory {
    books: Mutex<Books>,
    /// Where this only rehearses, the threads that would ask for the same at the same time; 0 stands for one.
    rehearsal: Option<AtomicUsize>,
}

#[derive(Default)]
struct Books {
    places: Places,
    /// One for each of `places`; none in a rehearsal.
    slabs: Vec<Lines>,
}

impl Memory {
    /// Memory that only counts: what it hands out are fresh pages of zeros that hardly anyone touches.
    pub(super) fn rehearsed() -> Self {
        Self { rehearsal: Some(AtomicUsize::new(0)), ..Self::default() }
    }

    pub(super) fn is_rehearsed(&self) -> bool {
        self.rehearsal.is_some()
    }

    /// Runs one job of many for all of them: what it takes is counted for each of `threads`.
    pub(super) fn rehearse(&self, threads: usize, job: impl FnOnce()) {
        let Some(at_once) = &self.rehearsal else { return };
        let before = at_once.swap(threads, Ordering::Relaxed);
        job();
        at_once.store(before, Ordering::Relaxed);
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for `len` elements, whatever is in it.
    pub(super) fn take<T: Element>(self: &Arc<Self>, len: usize) -> CpuBuffer<T> {
        let lines = len.saturating_mul(size_of::<T>()).div_ceil(LINE);
        let (pointer, held) = if lines == 0 {
            (NonNull::dangling(), Held::Nothing)
        } else if let Some(at_once) = &self.rehearsal {
            let mut books = self.books();
            let places = (0..at_once.load(Ordering::Relaxed).max(1)).map(|_| books.places.take(lines)).collect();
            let own = Lines::zeroed(lines);
            (own.from(0, lines).cast(), Held::Rehearsed { places, _own: own })
        } else {
            let mut books = self.books();
            let place = books.places.take(lines);
            let Books { places, slabs } = &mut *books;
            slabs.extend(places.slab_lines().skip(slabs.len()).map(|lines| Lines::zeroed(lines).in_huge_pages()));
            (slabs[place.slab].from(place.line, lines).cast(), Held::Place(place))
        };
        CpuBuffer { pointer, len, held, memory: Arc::clone(self), kept: Kept::nothing() }
    }

    /// How many slabs were asked of the system.
    pub(super) fn system_allocations(&self) -> usize {
        self.books().places.slab_lines().len()
    }

    /// The bytes that were ever handed out at once, with the gaps between them: pages behind them were never touched.
    pub(super) fn peak_bytes(&self) -> usize {
        self.books().places.touched() * LINE
    }
}

/// Elements in 64-byte aligned memory; goes back to its [`Cpu`](super::Cpu) when dropped.
pub struct CpuBuffer<T: Element> {
    pointer: NonNull<T>,
    len: usize,
    held: Held,
    memory: Arc<Memory>,
    kept: Kept<T>,
}

/// What a buffer has to give back.
enum Held {
    Nothing,
    Place(Place),
    /// The places that buffers of all threads would have, and the pages that this one has instead.
    Rehearsed {
        places: Vec<Place>,
        _own: Lines,
    },
}

// SAFETY: a buffer is the only one with its lines, and elements are plain numbers.
unsafe impl<T: Element> Send for CpuBuffer<T> {}
// SAFETY: through a shared reference its elements are only read.
unsafe impl<T: Element> Sync for CpuBuffer<T> {}

impl<T: Element> Deref for CpuBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `take` found room for so many elements, aligned and initialised (with zeros at first; every bit pattern is a
        // number). `Places` gives a line to one buffer at a time, and the memory lives as long as `self.memory` or `self.held`.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }
}

impl<T: Element> DerefMut for CpuBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.kept.clear();
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }
}

impl<T: Element> CpuBuffer<T> {
    /// What `make` makes of the numbers in `of`, for `form`: made once while the buffer is frozen (see
    /// [`Device::freeze`](crate::Device::freeze)), else each time. `make` must be a function of those numbers and the form alone.
    ///
    /// It is forgotten when the buffer is borrowed to be written, so that it is never out of date.
    pub fn made_of(&self, of: Range<usize>, form: Form, make: impl FnOnce() -> Self) -> Arc<Self> {
        self.kept.get(&of, form, make)
    }

    /// How many numbers are kept of what was made of these.
    pub fn kept_len(&self) -> usize {
        self.kept.len()
    }

    /// Whether what is made of the numbers is kept.
    pub fn is_frozen(&self) -> bool {
        self.kept.is_frozen()
    }

    pub(super) fn freeze(&self) {
        self.kept.freeze();
    }

    pub(super) fn thaw(&self) {
        self.kept.thaw();
    }
}

impl<T: Element> Drop for CpuBuffer<T> {
    fn drop(&mut self) {
        match &self.held {
            Held::Nothing => {}
            Held::Place(place) => self.memory.books().places.give_back(*place),
            Held::Rehearsed { places, .. } => {
                let mut books = self.memory.books();
                for place in places {
                    books.places.give_back(*place);
                }
            }
        }
    }
}

impl<T: Element> fmt::Debug for CpuBuffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuBuffer({} elements)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_come_back() {
        let memory = Arc::new(Memory::default());
        for len in [1, 7, 16, 1000] {
            let buffer = memory.take::<f32>(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr() as usize % 64, 0);
        }
        let before = memory.peak_bytes();
        let first = memory.take::<f32>(1000).as_ptr();
        let second = memory.take::<f64>(490).as_ptr(); // a little smaller, other type, same memory
        assert_eq!(first.cast::<u8>(), second.cast::<u8>());
        assert!(memory.take::<f32>(0).is_empty());
        assert_eq!(memory.peak_bytes(), before);
        let mut held = memory.take::<f32>(1000);
        held.fill(1.0);
        memory.take::<f32>(1000).fill(2.0);
        assert!(held.iter().all(|&x| x == 1.0));
        assert_eq!(memory.peak_bytes(), before + 1000_usize.div_ceil(16) * LINE);
        assert_eq!(memory.system_allocations(), 1);
    }

    #[test]
    fn what_is_rehearsed_is_counted_as_what_is_done() {
        let (done, rehearsed) = (Arc::new(Memory::default()), Arc::new(Memory::rehearsed()));
        for memory in [&done, &rehearsed] {
            let held = [100, 2000, 300].map(|len| memory.take::<f32>(len));
            drop(memory.take::<f32>(250));
            drop(held);
            drop(memory.take::<f64>(140));
            drop([memory.take::<f32>(1700), memory.take::<f32>(1700)]);
        }
        // two threads that take the same at the same time
        drop([done.take::<f32>(5000), done.take::<f32>(5000)]);
        rehearsed.rehearse(2, || drop(rehearsed.take::<f32>(5000)));
        drop([done.take::<f32>(4900), done.take::<f32>(4900)]);
        drop([rehearsed.take::<f32>(4900), rehearsed.take::<f32>(4900)]);
        assert_eq!(rehearsed.peak_bytes(), done.peak_bytes());
        assert_eq!(rehearsed.system_allocations(), done.system_allocations());
    }
}
