//! Malformed files give the error that names what is wrong.
#![allow(clippy::unwrap_used)] // tests

mod common;

use common::{Builder, sample};
use nanovllm_gguf::{Array, Error, GgmlType, GgufFile, Value};

const F32: u32 = GgmlType::F32 as u32;
const HUGE: [u64; 4] = [1 << 60, u64::MAX, -1i64 as u64, 1 << 32];

/// Asserts that an expression is an error of one variant, and that its text mentions something.
macro_rules! assert_error {
    ($error:expr, $pattern:pat, $text:expr) => {{
        let error = $error;
        assert!(matches!(error, $pattern), "{error:?}");
        assert!(error.to_string().contains($text), "{error}");
    }};
}

fn open(bytes: &[u8]) -> Error {
    GgufFile::from_bytes(bytes.to_vec()).unwrap_err()
}

#[test]
fn magic() {
    for bytes in [&b""[..], b"GGU", b"gguf\x03\0\0\0", b"Hello world", b"FUGG\0\0\0\x03", b"PK\x03\x04"] {
        assert_error!(open(bytes), Error::NotGguf { .. }, "not a GGUF file");
    }
    assert_error!(open(b"GGUF"), Error::Truncated { .. }, "version");
}

#[test]
fn version() {
    for version in [0, 4, 7, u32::MAX] {
        assert_error!(Builder::new(version).error(), Error::Version { .. }, &version.to_string());
    }
    for version in 1..=3u32 {
        assert_error!(Builder::new(version.swap_bytes()).error(), Error::BigEndian { .. }, "big-endian");
    }
}

#[test]
fn counts() {
    for version in 1..=3 {
        for count in HUGE {
            let count = if version == 1 { count & 0xffff_ffff | 0x8000_0000 } else { count };
            let mut builder = sample(version);
            builder.tensor_count = Some(count);
            assert_error!(builder.error(), Error::Count { .. }, &count.to_string());
            let mut builder = sample(version);
            builder.pair_count = Some(count);
            assert_error!(builder.error(), Error::Count { .. }, &count.to_string());
        }
    }
    // One more than there are: whatever follows is not a pair or an entry.
    let mut builder = Builder::new(3).pair("k", &Value::U8(1));
    builder.pair_count = Some(2);
    assert_error!(builder.error(), Error::Count { count: 2, .. } | Error::Truncated { .. }, "metadata");
    let mut builder = Builder::new(3).raw_tensor(b"w", &[1], F32, 0);
    builder.tensor_count = Some(2);
    assert_error!(builder.error(), Error::Count { count: 2, .. }, "tensor table");
}

#[test]
fn string_lengths() {
    for length in HUGE {
        let payload = [&length.to_le_bytes()[..], b"abc"].concat();
        assert_error!(Builder::new(3).raw_pair(b"k", 8, &payload).error(), Error::Truncated { .. }, "\"k\"");
        let array = Builder::new(3).raw_array(b"k", 8, 1, &payload).error();
        assert_error!(array, Error::Truncated { .. }, "\"k\"");
    }
    let mut bytes = Builder::new(3).pair("key", &Value::U64(0)).build();
    bytes[24..32].copy_from_slice(&(1u64 << 60).to_le_bytes());
    assert_error!(open(&bytes), Error::Truncated { .. }, "metadata key");
}

#[test]
fn array_lengths() {
    for id in [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12] {
        for count in HUGE.into_iter().chain([18]) {
            let error = Builder::new(3).raw_array(b"k", id, count, &[0; 17]).error();
            assert_error!(error, Error::Count { .. }, "\"k\"");
        }
    }
}

#[test]
fn names() {
    let twice = Builder::new(3).pair("k", &Value::U8(1)).pair("j", &Value::U8(1)).pair("k", &Value::I8(2));
    assert_error!(twice.error(), Error::DuplicateKey { .. }, "\"k\"");
    let twice = Builder::new(3).tensor("w", &[1], GgmlType::F32, &[0; 4]).tensor("w", &[1], GgmlType::F32, &[0; 4]);
    assert_error!(twice.error(), Error::DuplicateTensor { .. }, "\"w\"");
    assert_error!(Builder::new(3).pair("", &Value::U64(1)).error(), Error::EmptyName { .. }, "metadata key");
    let empty = Builder::new(3).raw_tensor(b"", &[1, 1], F32, 0).raw_data(&[0; 4]);
    assert_error!(empty.error(), Error::EmptyName { .. }, "tensor name");
    assert_error!(Builder::new(3).raw_pair(b"\xff\xfe", 0, &[1]).error(), Error::Utf8 { .. }, "metadata key");
    let tensor = Builder::new(3).raw_tensor(b"w\x80", &[1], F32, 0).raw_data(&[0; 4]);
    assert_error!(tensor.error(), Error::Utf8 { .. }, "tensor name");
    let long = "k".repeat(65_536);
    assert_error!(Builder::new(3).pair(&long, &Value::U8(1)).error(), Error::NameTooLong { .. }, "65535");
    assert_eq!(Builder::new(3).pair(&long[1..], &Value::U8(1)).open().metadata().len(), 1);
}

#[test]
fn value_types() {
    for id in [13, 255, u32::MAX] {
        let scalar = Builder::new(3).raw_pair(b"k", id, &[0; 16]).error();
        assert_error!(scalar, Error::ValueType { .. }, &id.to_string());
        let array = Builder::new(3).raw_array(b"k", id, 1, &[0; 16]).error();
        assert_error!(array, Error::ValueType { .. }, &id.to_string());
    }
    let nested = Builder::new(3).raw_array(b"k", 9, 1, &[0; 32]).error();
    assert_error!(nested, Error::NestedArray { .. }, "\"k\"");
    for byte in [2, 255] {
        let scalar = Builder::new(3).raw_pair(b"k", 7, &[byte]).error();
        assert_error!(scalar, Error::Bool { .. }, "\"k\"");
        let array = Builder::new(3).raw_array(b"k", 7, 2, &[1, byte]).error();
        assert_error!(array, Error::Bool { .. }, &byte.to_string());
    }
}

#[test]
fn alignment() {
    let with = |value: Value| Builder::new(3).pair("general.alignment", &value).error();
    for bad in [0, 3, 24, 33, u32::MAX] {
        assert_error!(with(Value::U32(bad)), Error::Alignment { .. }, &bad.to_string());
    }
    for (bad, name) in [
        (Value::U64(32), "u64"),
        (Value::I32(32), "i32"),
        (Value::String("32".into()), "string"),
        (Value::Array(Array::U32(vec![32])), "array of u32"),
    ] {
        assert_error!(with(bad), Error::Alignment { .. }, name);
    }
}

#[test]
fn dimensions() {
    let shaped = |dims: &[u64]| Builder::new(3).raw_tensor(b"w", dims, F32, 0).raw_data(&[0; 64]).error();
    assert_error!(shaped(&[]), Error::Dimensions { found: 0, .. }, "\"w\"");
    assert_error!(shaped(&[1; 5]), Error::Dimensions { found: 5, .. }, "\"w\"");
    for dims in [&[0][..], &[0, 4], &[4, 0], &[1, 1, 1, 0]] {
        assert_error!(shaped(dims), Error::ZeroDimension { .. }, "\"w\"");
    }
    for dims in [&[u64::MAX, 2][..], &[1 << 32, 1 << 32], &[1 << 62, 4], &[u64::MAX; 4], &[1 << 62], &[1 << 16; 4]] {
        assert_error!(shaped(dims), Error::TensorTooLarge { .. }, "\"w\"");
    }
    // This size can be expressed, but the file does not hold as much.
    assert_error!(shaped(&[1 << 60]), Error::OutOfFile { .. }, "\"w\"");
}

#[test]
fn element_types() {
    for id in [4, 5, 31, 1000, u32::MAX] {
        let error = Builder::new(3).raw_tensor(b"w", &[32], id, 0).raw_data(&[0; 256]).error();
        assert_error!(error, Error::TensorType { .. }, &format!("\"w\" has unknown element type {id}"));
    }
    for (row, dtype) in [(31, GgmlType::Q4_0), (33, GgmlType::Q8_0), (1, GgmlType::Q4_1), (128, GgmlType::Q4_K)] {
        // With 64 rows the whole is always whole blocks, but each row is not.
        let error = Builder::new(3).raw_tensor(b"w", &[row, 64], dtype as u32, 0).raw_data(&[0; 4096]).error();
        assert_error!(error, Error::PartialBlock { .. }, dtype.name());
    }
}

#[test]
fn offsets() {
    let at = |offset| Builder::new(3).raw_tensor(b"w", &[16], F32, offset).raw_data(&[0; 96]);
    assert_eq!(at(32).open().tensors()[0].len, 64);
    for offset in [1, 16, 33, u64::MAX] {
        assert_error!(at(offset).error(), Error::Misaligned { .. }, "32");
    }
    for offset in [64, 96, 1 << 40, u64::MAX - 31] {
        assert_error!(at(offset).error(), Error::OutOfFile { .. }, "\"w\"");
    }
}

#[test]
fn overlaps() {
    let pair = |a, b| {
        let builder = Builder::new(3).raw_tensor(b"a", &[16], F32, a).raw_tensor(b"b", &[16], F32, b);
        builder.raw_data(&[0; 192])
    };
    assert_eq!(pair(0, 64).open().tensors().len(), 2);
    assert_eq!(pair(128, 0).open().tensors().len(), 2);
    for (a, b) in [(0, 0), (0, 32), (32, 0), (64, 96)] {
        assert_error!(pair(a, b).error(), Error::Overlap { .. }, "\"a\"");
    }
}

/// Every prefix of a file whose last byte is a tensor's is refused.
#[test]
fn truncation() {
    for version in 1..=3 {
        let bytes = sample(version).build();
        for len in 0..bytes.len() {
            let error = open(&bytes[..len]);
            let expected = matches!(
                error,
                Error::NotGguf { .. } | Error::Truncated { .. } | Error::Count { .. } | Error::OutOfFile { .. }
            );
            assert!(expected, "{len} of {}: {error:?}", bytes.len());
        }
    }
}
