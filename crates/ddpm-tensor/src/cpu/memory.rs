use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::{Pod, Zeroable};

use crate::Element;

/// Bytes of a cache line: buffers begin at a multiple of it, which AVX-512 and AMX loads want.
const LINE: usize = 64;

/// What the system aligns by itself: only so far does it hand out fresh pages of zeros without touching them.
#[repr(C, align(16))]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Piece([u8; 16]);

/// Whole cache lines of zeros.
struct Lines {
    pieces: Vec<Piece>,
    /// Pieces before the first line.
    skipped: usize,
    count: usize,
}

impl Lines {
    fn zeroed(count: usize) -> Self {
        let (piece, a_line) = (size_of::<Piece>(), LINE / size_of::<Piece>());
        let pieces = if count == 0 { Vec::new() } else { bytemuck::zeroed_vec::<Piece>((count + 1) * a_line) };
        let skipped = pieces.as_ptr().addr().wrapping_neg() % LINE / piece;
        Self { pieces, skipped: if count == 0 { 0 } else { skipped }, count }
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.pieces[self.skipped..])[..self.count * LINE]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.pieces[self.skipped..])[..self.count * LINE]
    }
}

/// Buffers that were given back, by their size in lines, kept for the next step.
#[derive(Default)]
pub(super) struct Memory {
    spare: Mutex<BTreeMap<usize, Vec<Lines>>>,
    system_allocations: AtomicUsize,
    bytes: AtomicUsize,
    rehearsal: Option<Rehearsal>,
}

/// The books of a handle that only rehearses: which buffers there would be, while those that are handed out are fresh pages of
/// zeros that hardly anyone touches.
#[derive(Default)]
struct Rehearsal {
    /// How many spare buffers there would be of each size in lines.
    spare: Mutex<BTreeMap<usize, usize>>,
    /// Threads that would ask for the same at the same time; 0 stands for one.
    threads: AtomicUsize,
}

impl Memory {
    /// Memory that only counts.
    pub(super) fn rehearsed() -> Self {
        Self { rehearsal: Some(Rehearsal::default()), ..Self::default() }
    }

    pub(super) fn is_rehearsed(&self) -> bool {
        self.rehearsal.is_some()
    }

    /// Runs one job of many for all of them: what it takes is counted for each of `threads`.
    pub(super) fn rehearse(&self, threads: usize, job: impl FnOnce()) {
        let Some(rehearsal) = &self.rehearsal else { return };
        let before = rehearsal.threads.swap(threads, Ordering::Relaxed);
        job();
        rehearsal.threads.store(before, Ordering::Relaxed);
    }

    /// Enters a buffer in the books, for each thread that would take one: their sizes in lines.
    fn enter(&self, rehearsal: &Rehearsal, wanted: usize) -> Vec<usize> {
        let mut spare = rehearsal.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let threads = rehearsal.threads.load(Ordering::Relaxed).max(1);
        let one = |_| {
            if let Some((&size, count)) = spare.range_mut(fitting(wanted)).find(|(_, count)| **count > 0) {
                *count -= 1;
                return size;
            }
            self.count(wanted);
            wanted
        };
        (0..threads).map(one).collect()
    }

    /// A buffer of this many lines is asked of the system; one of nothing asks for nothing.
    fn count(&self, lines: usize) {
        self.system_allocations.fetch_add(usize::from(lines > 0), Ordering::Relaxed);
        self.bytes.fetch_add(lines * LINE, Ordering::Relaxed);
    }

    /// The smallest spare buffer that holds `len` elements and is at most a quarter larger, or a new one.
    pub(super) fn take<T: Element>(self: &Arc<Self>, len: usize) -> CpuBuffer<T> {
        let wanted = (len * size_of::<T>()).div_ceil(LINE);
        let (lines, entered) = if let Some(rehearsal) = &self.rehearsal {
            (Lines::zeroed(wanted), self.enter(rehearsal, wanted))
        } else {
            let found = {
                let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
                let size = spare.range_mut(fitting(wanted)).find(|(_, list)| !list.is_empty());
                size.and_then(|(_, list)| list.pop())
            };
            let new = || {
                self.count(wanted);
                Lines::zeroed(wanted)
            };
            (found.unwrap_or_else(new), Vec::new())
        };
        CpuBuffer { lines, len, entered, memory: Arc::clone(self), element: PhantomData }
    }

    fn give_back(&self, lines: Lines, entered: &[usize]) {
        if let Some(rehearsal) = &self.rehearsal {
            let mut spare = rehearsal.spare.lock().unwrap_or_else(PoisonError::into_inner);
            for &size in entered {
                *spare.entry(size).or_default() += 1;
            }
        } else if lines.count > 0 {
            let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            spare.entry(lines.count).or_default().push(lines);
        }
    }

    pub(super) fn system_allocations(&self) -> usize {
        self.system_allocations.load(Ordering::Relaxed)
    }

    /// Nothing is returned to the system while the handle lives, so what is held is the peak.
    pub(super) fn peak_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// The sizes in lines of spare buffers that serve where `wanted` lines are.
fn fitting(wanted: usize) -> std::ops::RangeInclusive<usize> {
    wanted..=wanted + wanted / 4
}

/// Elements in 64-byte aligned memory; goes back to the pool of its [`Cpu`](super::Cpu) when dropped.
pub struct CpuBuffer<T: Element> {
    lines: Lines,
    len: usize,
    /// What is in the books for it where memory is only counted.
    entered: Vec<usize>,
    memory: Arc<Memory>,
    element: PhantomData<T>,
}

impl<T: Element> Deref for CpuBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(self.lines.bytes())[..self.len]
    }
}

impl<T: Element> DerefMut for CpuBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(self.lines.bytes_mut())[..self.len]
    }
}

impl<T: Element> Drop for CpuBuffer<T> {
    fn drop(&mut self) {
        self.memory.give_back(std::mem::replace(&mut self.lines, Lines::zeroed(0)), &self.entered);
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
        let before = memory.system_allocations();
        let first = memory.take::<f32>(1000).as_ptr();
        let second = memory.take::<f64>(490).as_ptr(); // a little smaller, other type, same memory
        assert_eq!(first.cast::<u8>(), second.cast::<u8>());
        assert_eq!(memory.system_allocations(), before);
        assert!(memory.take::<f32>(0).is_empty());
        assert_eq!(memory.system_allocations(), before);
        let held = memory.take::<f32>(1000);
        assert_ne!(memory.take::<f32>(1000).as_ptr(), held.as_ptr());
        assert_eq!(memory.system_allocations(), before + 1);
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
