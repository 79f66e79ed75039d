//! An allocator that counts, for test binaries that make it their global one.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code)] // an allocator has no safe form
// SAFETY: memory comes from the system's allocator and returns to it; counting does not touch it.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: asks of the caller what `System.alloc` asks, a layout of some size.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(LIVE.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller promises that the size of `layout` is not zero.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: asks of the caller what `System.dealloc` asks, a pointer from `alloc` with its layout.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `alloc` got `pointer` from `System` for `layout`, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The result of `work`, and the most bytes that the process had allocated meanwhile beyond what it had before.
pub fn counted<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = work();
    (result, PEAK.load(Relaxed) - before)
}
