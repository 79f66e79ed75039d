//! What a file claims is never allocated: memory stays within a small multiple of the file's size.
//!
//! The test is alone in its binary, for it counts what the whole process allocates.
#![allow(clippy::unwrap_used)] // tests

mod common;

use common::counting::{Counting, counted};
use common::{Builder, sample};
use nanovllm_gguf::{Error, GgmlType, GgufFile};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Opens the file, which may fail, and checks that memory stayed within a multiple of its size.
fn open_within_bounds(bytes: Vec<u8>) -> Result<GgufFile, Error> {
    let limit = 4096 + 16 * bytes.len();
    let (result, used) = counted(|| GgufFile::from_bytes(bytes));
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
    // The smallest entries there can be, and many of them.
    let empty_strings = Builder::new(3).raw_array(b"k", 8, 50_000, &vec![0; 400_000]).build();
    assert!(open_within_bounds(empty_strings).is_ok());

    // Sets every byte of a good file to values that make lengths and counts huge.
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
