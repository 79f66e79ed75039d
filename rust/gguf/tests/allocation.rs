//! What a file claims is never allocated: memory stays within a small multiple of the file's size.
//!
//! One test alone in its binary, for it counts what the whole process allocates.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::{Builder, sample};
use nanovllm_gguf::{Error, GgmlType, GgufFile};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code)] // an allocator has no safe form
// SAFETY: every call is the system allocator's own; counting touches none of its memory.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller's promises are passed on unchanged.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(LIVE.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the caller's promises are passed on unchanged.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Opens the file, which may fail, within a multiple of its size.
fn open_within_bounds(bytes: Vec<u8>) -> Result<GgufFile, Error> {
    let limit = 4096 + 16 * bytes.len();
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = GgufFile::from_bytes(bytes);
    let used = PEAK.load(Relaxed) - before;
    assert!(used <= limit, "{used} bytes allocated, {limit} allowed: {result:?}");
    result
}

#[test]
fn claims_are_not_allocated() {
    const HUGE: u64 = 1 << 60;
    let counts = |tensors, pairs| {
        let mut builder = Builder::new(3);
        (builder.tensor_count, builder.pair_count) = (tensors, pairs);
        builder
    };
    let claims = [
        counts(Some(HUGE), None),
        counts(None, Some(HUGE)),
        Builder::new(3).raw_pair(b"k", 8, &HUGE.to_le_bytes()),
        Builder::new(3).raw_array(b"k", 8, HUGE, &[0; 40]),
        Builder::new(3).raw_array(b"k", 0, HUGE, &[0; 40]),
        Builder::new(3).raw_array(b"k", 12, HUGE / 8, &[0; 40]),
        Builder::new(3).raw_tensor(b"w", &[HUGE], GgmlType::I8 as u32, 0),
    ];
    for claim in claims {
        let bytes = claim.build();
        assert!(bytes.len() <= 100, "{}", bytes.len());
        assert!(open_within_bounds(bytes).is_err());
    }
    // Many of the smallest things that can be.
    let empty_strings = Builder::new(3).raw_array(b"k", 8, 50_000, &vec![0; 400_000]).build();
    assert!(open_within_bounds(empty_strings).is_ok());

    // Every byte of a good file set to values that turn lengths and counts huge.
    for version in 1..=3 {
        let good = sample(version).build();
        assert!(open_within_bounds(good.clone()).is_ok());
        for at in 0..good.len() {
            for value in [0x00, 0x7f, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                drop(open_within_bounds(bytes));
            }
        }
    }
}
