//! Files in the format safetensors.

use super::{Seed, seed};

/// A file with this header and this many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![1; data]].concat()
}

/// A header that claims to be `len` bytes long.
fn claim(len: u64) -> Vec<u8> {
    [&len.to_le_bytes()[..], b"{}"].concat()
}

/// A file of 16 bytes of data with one entry.
fn entry(dtype: &str, shape: &str, offsets: &str) -> Vec<u8> {
    file(&format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#), 16)
}

/// A file of 16 bytes of data with two entries of two elements.
fn two(first: (&str, &str), second: (&str, &str)) -> Vec<u8> {
    let [a, b] = [first, second]
        .map(|(name, offsets)| format!(r#""{name}":{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}"#));
    file(&format!("{{{a},{b}}}"), 16)
}

pub(super) fn seeds() -> Vec<Seed> {
    [well_formed(), headers(), entries()].into_iter().flatten().collect()
}

fn well_formed() -> Vec<Seed> {
    let dtypes = [("F32", "[4]"), ("BF16", "[2,4]"), ("F16", "[8]"), ("U8", "[16,1]"), ("F4", "[32]"), ("C64", "[2]")];
    let mut seeds: Vec<Seed> = dtypes
        .iter()
        .map(|(dtype, shape)| seed(&format!("ok-type_{dtype}"), "", entry(dtype, shape, "[0,16]")))
        .collect();
    let none = r#"{"w":{"dtype":"F32","shape":[0,3],"data_offsets":[0,0]}}"#;
    let scalar = r#"{"__metadata__":{"format":"pt"},"w":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}    "#;
    seeds.extend([
        seed("ok-two_tensors", "", two(("a", "[8,16]"), ("b", "[0,8]"))),
        seed("ok-no_tensor", "", file("{}", 0)),
        seed("ok-no_element", "", file(none, 0)),
        seed("ok-scalar_with_metadata", "", file(scalar, 8)),
    ]);
    seeds
}

fn headers() -> Vec<Seed> {
    let deep = format!(r#"{{"w":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
    vec![
        seed("SafeTensors-nothing", "header", ""),
        seed("SafeTensors-cut_in_the_length", "header", &[2, 0, 0, 0, 0, 0, 0][..]),
        seed("SafeTensors-length_0", "JSON", claim(0)),
        seed("SafeTensors-length_past_the_end", "header length", claim(3)),
        seed("SafeTensors-length_huge", "too large", claim(1 << 60)),
        seed("SafeTensors-length_negative", "too large", claim(-1i64 as u64)),
        seed("SafeTensors-length_over_the_limit", "too large", claim(100_000_001)),
        seed("SafeTensors-not_utf8", "UTF-8", [&2u64.to_le_bytes()[..], b"\xff\xfe"].concat()),
        seed("SafeTensors-not_json", "JSON", file("{\"w\":", 0)),
        seed("SafeTensors-an_array", "JSON", file("[]", 0)),
        seed("SafeTensors-nested_deeply", "JSON", file(&deep, 0)),
        seed("SafeTensors-metadata_not_text", "JSON", file(r#"{"__metadata__":{"a":1}}"#, 0)),
        seed("SafeTensors-entry_not_an_object", "JSON", file(r#"{"w":[0,16]}"#, 16)),
        seed("SafeTensors-entry_without_offsets", "JSON", file(r#"{"w":{"dtype":"F32","shape":[4]}}"#, 16)),
    ]
}

fn entries() -> Vec<Seed> {
    let four = r#"{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
    vec![
        seed("SafeTensors-dtype_unknown", "JSON", entry("Q4_K", "[4]", "[0,16]")),
        seed("SafeTensors-dimension_negative", "JSON", entry("F32", "[-4]", "[0,16]")),
        seed("SafeTensors-dimension_a_fraction", "JSON", entry("F32", "[4.0]", "[0,16]")),
        seed("SafeTensors-shape_overflows", "overflow", entry("F32", "[4294967296,4294967296]", "[0,16]")),
        seed("SafeTensors-bytes_overflow", "overflow", entry("F64", "[4611686018427387904]", "[0,16]")),
        seed("SafeTensors-shape_larger_than_data", "shape", entry("F32", "[5]", "[0,16]")),
        seed("SafeTensors-part_of_a_byte", "", entry("F4", "[31]", "[0,16]")),
        seed("SafeTensors-offsets_reversed", "offset", entry("F32", "[4]", "[16,0]")),
        seed("SafeTensors-offsets_past_the_end", "not fully covered", entry("F32", "[5]", "[0,20]")),
        seed("SafeTensors-offsets_huge", "", entry("U8", "[1152921504606846976]", "[0,1152921504606846976]")),
        seed("SafeTensors-offset_not_0", "offset", entry("F32", "[3]", "[4,16]")),
        seed("SafeTensors-overlap", "offset", two(("a", "[0,8]"), ("b", "[4,12]"))),
        seed("SafeTensors-overlap_entirely", "offset", two(("a", "[0,8]"), ("b", "[0,8]"))),
        seed("SafeTensors-hole", "offset", two(("a", "[0,8]"), ("b", "[12,20]"))),
        seed("SafeTensors-data_short", "not fully covered", file(four, 15)),
        seed("SafeTensors-data_long", "not fully covered", file(four, 17)),
        seed("SafeTensors-name_twice", "\"w\" appears twice", {
            let entry = r#""w":{"dtype":"U8","shape":[16],"data_offsets":[0,16]}"#;
            file(&format!("{{{entry},{entry}}}"), 16)
        }),
    ]
}
