//! GGUF files that are wrong in themselves.

use nanovllm_gguf::{GgmlType, Value};

use super::{Seed, seed};
use crate::common::{Builder, sample};

const F32: u32 = GgmlType::F32 as u32;
const HUGE: u64 = 1 << 60;
/// What -1 as a count or a length is to a reader of unsigned numbers.
const NEGATIVE: u64 = -1i64 as u64;

pub(super) fn seeds() -> Vec<Seed> {
    [well_formed(), headers(), pairs(), tables(), offsets()].into_iter().flatten().collect()
}

fn well_formed() -> Vec<Seed> {
    let mut seeds: Vec<Seed> = GgmlType::ALL
        .iter()
        .map(|dtype| {
            let data: Vec<u8> = (0..2 * dtype.type_size()).map(|i| (37 * i) as u8).collect();
            let dims = [dtype.block_size() as u64, 2];
            seed(&format!("ok-type_{dtype}"), "", Builder::new(3).tensor("w", &dims, *dtype, &data).build())
        })
        .collect();
    seeds.extend((1..=3).map(|version| seed(&format!("ok-version_{version}"), "", sample(version).build())));
    let mut aligned = Builder::new(3).pair("general.alignment", &Value::U32(64));
    aligned.alignment = 64;
    let aligned = aligned.tensor("a", &[3], GgmlType::I8, &[1, 2, 3]).tensor("b", &[1], GgmlType::F32, &[0; 4]);
    let split = Builder::new(3).pair("split.no", &Value::U16(1)).pair("split.count", &Value::U16(3));
    seeds.extend([
        seed("ok-nothing_but_a_header", "", Builder::new(3).build()),
        seed("ok-aligned_to_64", "", aligned.build()),
        seed("ok-a_shard_alone", "", split.pair("split.tensors.count", &Value::I32(9)).build()),
    ]);
    seeds
}

fn headers() -> Vec<Seed> {
    let swapped = |version: u32| {
        let mut bytes = Builder::new(version.swap_bytes()).build();
        bytes.truncate(8);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes
    };
    let counts = |tensors, pairs| {
        let mut builder = sample(3);
        (builder.tensor_count, builder.pair_count) = (tensors, pairs);
        builder.build()
    };
    let mut short = sample(3).build();
    short.pop();
    vec![
        seed("NotGguf-nothing", "begins with \"\"", ""),
        seed("NotGguf-text", "begins with \"Once\"", "Once upon a time"),
        seed("NotGguf-lower_case", "begins with \"gguf\"", [b"gguf", &Builder::new(3).build()[4..]].concat()),
        seed("NotGguf-cut_in_the_magic", "begins with \"GG\"", "GG"),
        seed("Truncated-after_the_magic", "version", "GGUF"),
        seed("Version-0", "version 0", Builder::new(0).build()),
        seed("Version-future", "version 4", Builder::new(4).build()),
        seed("Version-largest", "4294967295", Builder::new(u32::MAX).build()),
        seed("BigEndian-version_1", "version 1, byte-swapped", swapped(1)),
        seed("BigEndian-version_3", "version 3, byte-swapped", swapped(3)),
        seed("Count-tensors_huge", "tensor table", counts(Some(HUGE), None)),
        seed("Count-tensors_negative", "tensor table", counts(Some(NEGATIVE), None)),
        seed("Count-pairs_huge", "metadata", counts(None, Some(HUGE))),
        seed("Count-pairs_negative", "metadata", counts(None, Some(NEGATIVE))),
        seed("OutOfFile-data_short_by_one_byte", "truncated file", short),
    ]
}

fn pairs() -> Vec<Seed> {
    let raw = |type_id: u32, payload: &[u8]| Builder::new(3).raw_pair(b"k", type_id, payload).build();
    let array = |type_id: u32, count: u64| Builder::new(3).raw_array(b"k", type_id, count, &[0; 24]).build();
    let alignment = |value: Value| Builder::new(3).pair("general.alignment", &value).build();
    let pair = |key: &str| Builder::new(3).pair(key, &Value::U64(1));
    let mut long_key = pair("key").build();
    long_key[24..32].copy_from_slice(&HUGE.to_le_bytes());
    let long_string = [&HUGE.to_le_bytes()[..], b"abc"].concat();
    let strings = Builder::new(3).raw_array(b"k", 8, 2, &[&3u64.to_le_bytes()[..], b"abc", &long_string].concat());
    vec![
        seed("Truncated-key_length", "metadata key", long_key),
        seed("Truncated-string_length", "\"k\"", raw(8, &long_string)),
        seed("Truncated-string_in_an_array", "\"k\"", strings.build()),
        seed("Count-array_huge", "\"k\"", array(4, HUGE)),
        seed("Count-array_negative", "\"k\"", array(0, NEGATIVE)),
        seed("Count-array_one_too_many", "\"k\"", array(4, 7)),
        seed("Count-strings_huge", "\"k\"", array(8, HUGE)),
        seed("EmptyName-key", "metadata key", pair("").build()),
        seed("DuplicateKey-same_value", "\"k\" appears twice", pair("k").pair("k", &Value::U64(1)).build()),
        seed("DuplicateKey-other_type", "\"k\" appears twice", pair("k").pair("k", &Value::Bool(true)).build()),
        seed("Utf8-key", "metadata key", Builder::new(3).raw_pair(b"\xff\xfe", 0, &[1]).build()),
        seed("ValueType-13", "13", raw(13, &[0; 8])),
        seed("ValueType-largest", "4294967295", raw(u32::MAX, &[0; 8])),
        seed("ValueType-of_an_array", "99", array(99, 1)),
        seed("NestedArray-of_arrays", "array of arrays", array(9, 1)),
        seed("Bool-2", "stored as 2", raw(7, &[2, 0, 0])),
        seed("Bool-in_an_array", "stored as 255", Builder::new(3).raw_array(b"k", 7, 2, &[1, 255]).build()),
        seed("Alignment-0", "is 0", alignment(Value::U32(0))),
        seed("Alignment-no_power_of_two", "is 24", alignment(Value::U32(24))),
        seed("Alignment-of_type_u64", "u64", alignment(Value::U64(32))),
        seed("Alignment-of_type_string", "string", alignment(Value::String("32".into()))),
    ]
}

fn tables() -> Vec<Seed> {
    let entry = |name: &[u8], dims: &[u64], type_id: u32| {
        Builder::new(3).raw_tensor(name, dims, type_id, 0).raw_data(&[0; 64]).build()
    };
    let shaped = |dims: &[u64]| entry(b"w", dims, F32);
    let w = |builder: Builder| builder.tensor("w", &[1], GgmlType::F32, &[0; 4]);
    vec![
        seed("EmptyName-tensor", "tensor name", entry(b"", &[1, 1], F32)),
        seed("Utf8-tensor", "tensor name", entry(b"w\x80", &[1], F32)),
        seed("DuplicateTensor-same", "\"w\" appears twice", w(w(Builder::new(3))).build()),
        seed("Dimensions-none", "0 dimensions", shaped(&[])),
        seed("Dimensions-five", "5 dimensions", shaped(&[1; 5])),
        seed("ZeroDimension-first", "dimension 0", shaped(&[0, 4])),
        seed("ZeroDimension-last", "dimension 1", shaped(&[4, 0])),
        seed("TensorTooLarge-negative", "overflows", shaped(&[NEGATIVE, 2])),
        seed("TensorTooLarge-product", "overflows", shaped(&[1 << 32, 1 << 32])),
        seed("TensorTooLarge-bytes", "overflows", shaped(&[1 << 62])),
        seed("OutOfFile-shape", "outside the data section", shaped(&[1 << 40])),
        seed("TensorType-removed", "type 4", entry(b"w", &[32], 4)),
        seed("TensorType-out_of_range", "type 1000", entry(b"w", &[32], 1000)),
        seed("PartialBlock-Q4_0", "rows of 16", entry(b"w", &[16, 2], GgmlType::Q4_0 as u32)),
        seed("PartialBlock-Q6_K", "rows of 128", entry(b"w", &[128, 2], GgmlType::Q6_K as u32)),
    ]
}

fn offsets() -> Vec<Seed> {
    let at = |offset| Builder::new(3).raw_tensor(b"w", &[16], F32, offset).raw_data(&[0; 96]).build();
    let two = |a, b| {
        let builder = Builder::new(3).raw_tensor(b"a", &[16], F32, a).raw_tensor(b"b", &[16], F32, b);
        builder.raw_data(&[0; 192]).build()
    };
    vec![
        seed("ok-out_of_order_with_gaps", "", two(128, 0)),
        seed("Misaligned-16", "offset 16", at(16)),
        seed("Misaligned-negative", "multiple of the alignment", at(NEGATIVE)),
        seed("OutOfFile-partly", "offset 64", at(64)),
        seed("OutOfFile-far", "outside the data section", at(HUGE)),
        seed("OutOfFile-wraps_around", "outside the data section", at(NEGATIVE - 31)),
        seed("Overlap-same_offset", "\"a\" and \"b\" overlap", two(0, 0)),
        seed("Overlap-partly", "\"b\" and \"a\" overlap", two(32, 0)),
    ]
}
