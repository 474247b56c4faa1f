//! One output, written by many threads in parts that do not overlap.

use std::marker::PhantomData;
use std::ops::Range;

/// A slice of which parallel jobs write parts of their own.
#[derive(Debug)]
pub struct DisjointMut<'a, T> {
    pointer: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: the slice is borrowed exclusively for 'a, and parts are only handed out by `part`,
// whose caller promises that no two live parts overlap.
unsafe impl<T: Send> Sync for DisjointMut<'_, T> {}
// SAFETY: as above; a pointer to sendable elements.
unsafe impl<T: Send> Send for DisjointMut<'_, T> {}

impl<'a, T> DisjointMut<'a, T> {
    /// Borrows the whole slice.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { pointer: slice.as_mut_ptr(), len: slice.len(), lifetime: PhantomData }
    }

    /// The elements of `range`, to be written.
    ///
    /// # Safety
    /// No other part that is alive at the same time may overlap `range`.
    ///
    /// # Panics
    /// When the range ends after the slice.
    #[allow(clippy::mut_from_ref)] // that is what this type is for
    pub unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {} elements", self.len);
        // SAFETY: within the slice by the assertion; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(range.start), range.len()) }
    }
}
