use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::{Pod, Zeroable};

use crate::Element;

/// A cache line: a vector of them is aligned to 64 bytes, which AVX-512 and AMX loads want.
#[repr(C, align(64))]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Line([u8; 64]);

/// Buffers that were given back, by their size in lines, kept for the next step.
#[derive(Default)]
pub(super) struct Memory {
    spare: Mutex<BTreeMap<usize, Vec<Vec<Line>>>>,
    system_allocations: AtomicUsize,
    bytes: AtomicUsize,
}

impl Memory {
    /// The smallest spare buffer that holds `len` elements and is at most a quarter larger, or a new one.
    pub(super) fn take<T: Element>(self: &Arc<Self>, len: usize) -> CpuBuffer<T> {
        let wanted = (len * size_of::<T>()).div_ceil(size_of::<Line>());
        let found = {
            let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            let size = spare.range_mut(wanted..=wanted + wanted / 4).find(|(_, list)| !list.is_empty());
            size.and_then(|(_, list)| list.pop())
        };
        let lines = found.unwrap_or_else(|| {
            // A buffer of nothing asks the system for nothing.
            self.system_allocations.fetch_add(usize::from(wanted > 0), Ordering::Relaxed);
            self.bytes.fetch_add(wanted * size_of::<Line>(), Ordering::Relaxed);
            vec![Line::zeroed(); wanted]
        });
        CpuBuffer { lines, len, memory: Arc::clone(self), element: PhantomData }
    }

    fn give_back(&self, lines: Vec<Line>) {
        if !lines.is_empty() {
            let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            spare.entry(lines.len()).or_default().push(lines);
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

/// Elements in 64-byte aligned memory; goes back to the pool of its [`Cpu`](super::Cpu) when dropped.
pub struct CpuBuffer<T: Element> {
    lines: Vec<Line>,
    len: usize,
    memory: Arc<Memory>,
    element: PhantomData<T>,
}

impl<T: Element> Deref for CpuBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<T: Element> DerefMut for CpuBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl<T: Element> Drop for CpuBuffer<T> {
    fn drop(&mut self) {
        self.memory.give_back(std::mem::take(&mut self.lines));
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
}
