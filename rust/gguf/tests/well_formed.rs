//! Well-formed files are read as written.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::path::Path;

use common::{Builder, sample, values};
use nanovllm_gguf::{Array, Error, GgmlType, GgufFile, Value};

#[test]
fn every_version_and_value_type() {
    for version in 1..=3 {
        let file = sample(version).open();
        assert_eq!(file.version(), version);
        let read: Vec<_> = file.metadata().iter().map(|(key, value)| (key, value.clone())).collect();
        assert_eq!(read, values(), "version {version}");
        assert_eq!(file.metadata().len(), values().len());
        assert!(values().iter().all(|(key, value)| file.metadata().get(key) == Some(value)));
    }
}

#[test]
fn tensors_in_file_order_with_their_data() {
    for version in 1..=3 {
        let bytes = sample(version).build();
        let file = GgufFile::from_bytes(bytes.clone()).unwrap();
        let names: Vec<_> = file.tensors().iter().map(|info| info.name.as_str()).collect();
        assert_eq!(names, ["output_norm.weight", "blk.0.attn_q.weight", "blk.0.ffn_up.weight"]);
        for info in file.tensors() {
            let view = file.tensor(&info.name).unwrap();
            assert_eq!((view.name, view.dtype, view.dims), (info.name.as_str(), info.dtype, &info.dims[..]));
            assert_eq!(view.data, &bytes[info.offset..info.offset + info.len]);
            assert_eq!(info.offset % 32, 0);
            assert_eq!(view.elements(), info.elements());
        }
        let q = file.tensor("blk.0.attn_q.weight").unwrap();
        assert_eq!((q.dtype, q.dims, q.data.len()), (GgmlType::Q4_1, &[64, 3][..], 120));
        assert_eq!(q.data[..4], [0, 7, 14, 21]);
        let norm = file.tensor("output_norm.weight").unwrap().to_f32().unwrap();
        assert_eq!(norm, (0..12).map(|i| i as f32 * 0.5 - 3.0).collect::<Vec<_>>());
        assert!(file.tensor("output.weight").is_none());
    }
}

#[test]
fn alignment_is_honoured() {
    for alignment in [1, 8, 64, 4096] {
        let mut builder = Builder::new(3).pair("general.alignment", &Value::U32(alignment as u32));
        builder.alignment = alignment;
        let file =
            builder.tensor("a", &[3], GgmlType::I8, &[1, 2, 3]).tensor("b", &[32], GgmlType::Q8_0, &[9; 34]).open();
        assert_eq!(file.tensor("a").unwrap().data, [1, 2, 3]);
        assert_eq!(file.tensor("b").unwrap().data, [9; 34]);
        assert!(file.tensor("b").unwrap().to_f32().is_ok(), "blocks need no alignment");
        assert!(file.tensors().iter().all(|info| info.offset % alignment == 0));
    }
}

#[test]
fn tensors_may_lie_out_of_order_with_gaps() {
    let data: Vec<u8> = (0..160).collect();
    let file = Builder::new(3)
        .raw_tensor(b"late", &[8], GgmlType::F32 as u32, 128)
        .raw_tensor(b"early", &[8], GgmlType::F32 as u32, 32)
        .raw_data(&data)
        .open();
    assert_eq!(file.tensor("late").unwrap().data, &data[128..160]);
    assert_eq!(file.tensor("early").unwrap().data, &data[32..64]);
}

#[test]
fn nothing_but_a_header() {
    for version in 1..=3 {
        let file = Builder::new(version).open();
        assert!(file.metadata().is_empty() && file.tensors().is_empty());
        // This file ends before the padding that a data section would need.
        let file = Builder::new(version).pair("k", &Value::Bool(false)).open();
        assert_eq!(file.metadata().get("k"), Some(&Value::Bool(false)));
    }
}

#[test]
fn strings_that_are_not_utf8_are_kept_readable() {
    let builder = Builder::new(3);
    let payload = [builder.text(b"ok"), builder.text(b"a\xff\xfeb")].concat();
    let file = builder.raw_array(b"tokens", 8, 2, &payload).open();
    let expected = Array::String(vec!["ok".into(), "a\u{fffd}\u{fffd}b".into()]);
    assert_eq!(file.metadata().get("tokens"), Some(&Value::Array(expected)));
}

#[test]
fn tensors_of_every_type_are_read() {
    for &dtype in GgmlType::ALL {
        let file = Builder::new(3).tensor("w", &[256], dtype, &vec![0; dtype.bytes_for(256).unwrap()]).open();
        let view = file.tensor("w").unwrap();
        assert_eq!(view.dtype, dtype);
        assert_eq!(view.to_f32().unwrap().len(), 256, "{dtype}");
    }
}

#[test]
fn files_on_disk_are_mapped_and_survive_release() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let big: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    let bytes = sample(3).tensor("big", &[1_000_000], GgmlType::I32, &big).build();
    std::fs::write(&path, &bytes).unwrap();
    let file = GgufFile::open(&path).unwrap();
    let view = file.tensor("big").unwrap();
    assert!(view.data == big);
    file.release(&view);
    assert!(view.data == big, "released pages are read again");
    // Views of other files, in memory or not, are left alone.
    let other = GgufFile::from_bytes(bytes).unwrap();
    let other_view = other.tensor("big").unwrap();
    file.release(&other_view);
    other.release(&other_view);
    other.release(&view);
    assert!(other_view.data == big);
}

/// Resident memory of a mapped file falls when its tensors are released.
#[cfg(target_os = "linux")]
#[test]
fn release_gives_pages_back() {
    const ELEMENTS: u64 = 32 << 20;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, Builder::new(3).tensor("w", &[ELEMENTS], GgmlType::I8, &vec![1; ELEMENTS as usize]).build())
        .unwrap();
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssFile:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    let file = GgufFile::open(&path).unwrap();
    let view = file.tensor("w").unwrap();
    assert_eq!(view.data.iter().map(|&b| u64::from(b)).sum::<u64>(), ELEMENTS);
    let before = resident();
    file.release(&view);
    let after = resident();
    assert!(after + ELEMENTS / 2 < before, "{before} to {after}");
}

#[test]
fn paths_are_named_in_errors() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.gguf");
    std::fs::write(&text, "Hello, this is no model").unwrap();
    let empty = folder.path().join("empty.gguf");
    std::fs::write(&empty, "").unwrap();
    let missing = folder.path().join("missing.gguf");
    let open = |path: &Path| GgufFile::open(path).unwrap_err();
    for path in [folder.path(), &text, &empty, &missing] {
        let error = open(path);
        assert!(matches!(error, Error::InFile { .. }));
        assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
    }
    assert!(matches!(open(folder.path()).kind(), Error::NotAFile));
    assert!(matches!(open(&empty).kind(), Error::NotGguf { .. }));
    assert!(matches!(open(&missing).kind(), Error::Io(_)));
    assert!(open(&text).to_string().contains("not a GGUF file"), "{}", open(&text));
}

#[test]
fn a_file_is_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>(_: &T) {}
    let file = sample(3).open();
    shared(&file);
    assert_eq!(format!("{file:?}").matches("Gguf").count(), 1);
}
