//! A training step asks the system for no tensor memory once it has warmed up: a counting allocator shows it.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ddpm_tests::{tiny_settings, tiny_trainer};

/// From this size on an allocation is taken for a tensor's: lists of what belongs to each image are far smaller.
const TENSOR: usize = 4096;

/// Allocations of at least [`TENSOR`] bytes, by any thread.
static LARGE: AtomicUsize = AtomicUsize::new(0);

struct Counting;

fn count(size: usize) {
    if size >= TENSOR {
        LARGE.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator with the same arguments; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps `GlobalAlloc`'s contract, which is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as above; `pointer` came from `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn steps_allocate_no_tensors_after_warm_up() {
    let mut settings = tiny_settings();
    settings.train.micro_batch = 48; // 48 and 16: two sizes of everything
    let mut trainer = tiny_trainer(2, settings).unwrap();
    assert!(LARGE.load(Ordering::Relaxed) > 10, "building a trainer is seen");
    // which threads hold buffers at the same time differs from step to step on a busy machine: the pool is full after some of them
    let mut last = (usize::MAX, 0);
    for window in 0..12 {
        let before = (LARGE.load(Ordering::Relaxed), trainer.backend().system_allocations());
        for _ in 0..4 {
            trainer.step().unwrap();
        }
        last = (LARGE.load(Ordering::Relaxed) - before.0, trainer.backend().system_allocations() - before.1);
        if window > 0 && last == (0, 0) {
            return;
        }
    }
    panic!(
        "still allocating after 44 steps: {} times {TENSOR} bytes or more, {} for the pool, in four steps",
        last.0, last.1
    );
}
