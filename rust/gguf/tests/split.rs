//! Split models are one model, and shards that do not belong together are refused.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::path::{Path, PathBuf};

use common::Builder;
use nanovllm_gguf::{Error, GgmlType, GgufFile, Value};

/// A shard with one tensor of each name, filled with the shard's number.
fn shard(no: u64, count: u64, total: u64, tensors: &[&str]) -> Builder {
    let mut builder = Builder::new(3)
        .pair("split.no", &Value::U16(no as u16))
        .pair("split.count", &Value::U16(count as u16))
        .pair("split.tensors.count", &Value::I32(total as i32));
    if no == 0 {
        builder = builder.pair("general.name", &Value::String("whole".into()));
    }
    tensors.iter().fold(builder, |b, name| b.tensor(name, &[40], GgmlType::I8, &[no as u8 + 1; 40]))
}

fn path(folder: &Path, no: u64, count: u64) -> PathBuf {
    folder.join(format!("a model-{:05}-of-{count:05}.gguf", no + 1))
}

/// Three good shards with four tensors.
fn three(folder: &Path) {
    for (no, tensors) in [&["a", "b"][..], &["c"], &["d"]].iter().enumerate() {
        std::fs::write(path(folder, no as u64, 3), shard(no as u64, 3, 4, tensors).build()).unwrap();
    }
}

/// The error of opening a model of which one shard was replaced, from each shard; its text names `file`.
fn replaced(no: u64, with: Builder, file: u64) -> Vec<Error> {
    let folder = tempfile::tempdir().unwrap();
    three(folder.path());
    std::fs::write(path(folder.path(), no, 3), with.build()).unwrap();
    let errors: Vec<Error> = (0..3)
        .filter(|&from| from != no) // opened from that one, the others do not fit
        .map(|from| GgufFile::open(&path(folder.path(), from, 3)).unwrap_err())
        .collect();
    for error in &errors {
        let name = path(folder.path(), file, 3).display().to_string();
        assert!(error.to_string().starts_with(&name), "{error}");
    }
    errors
}

#[test]
fn any_shard_opens_the_model() {
    let folder = tempfile::tempdir().unwrap();
    three(folder.path());
    for from in 0..3 {
        let file = GgufFile::open(&path(folder.path(), from, 3)).unwrap();
        assert_eq!(file.metadata().str("general.name").unwrap(), "whole");
        let names: Vec<_> = file.tensors().iter().map(|info| (info.name.as_str(), info.shard)).collect();
        assert_eq!(names, [("a", 0), ("b", 0), ("c", 1), ("d", 2)]);
        for info in file.tensors() {
            let view = file.tensor(&info.name).unwrap();
            assert_eq!(view.data, [info.shard as u8 + 1; 40]);
            file.check(&info.name).unwrap();
            file.release(&view);
            assert_eq!(view.data, [info.shard as u8 + 1; 40]);
        }
    }
}

#[test]
fn a_saved_split_model_is_one_file() {
    let folder = tempfile::tempdir().unwrap();
    three(folder.path());
    let whole = folder.path().join("whole.gguf");
    GgufFile::open(&path(folder.path(), 1, 3)).unwrap().save(&whole).unwrap();
    let file = GgufFile::open(&whole).unwrap();
    assert_eq!(file.metadata().iter().map(|(key, _)| key).collect::<Vec<_>>(), ["general.name"]);
    assert_eq!(file.tensors().len(), 4);
    assert_eq!(file.tensor("d").unwrap().data, [3; 40]);
}

#[test]
fn a_missing_shard_is_named() {
    for missing in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        three(folder.path());
        std::fs::remove_file(path(folder.path(), missing, 3)).unwrap();
        for from in (0..3).filter(|&from| from != missing) {
            let error = GgufFile::open(&path(folder.path(), from, 3)).unwrap_err();
            assert!(matches!(error.kind(), Error::MissingShard { shard, count: 3 } if *shard == missing + 1));
            let name = path(folder.path(), missing, 3).display().to_string();
            assert!(error.to_string().starts_with(&name), "{error}");
        }
    }
}

#[test]
fn shards_of_another_model_are_refused() {
    for (with, key) in [
        (shard(2, 3, 4, &["c"]), "split.no"),
        (shard(1, 4, 4, &["c"]), "split.count"),
        (shard(1, 3, 5, &["c"]), "split.tensors.count"),
    ] {
        for error in replaced(1, with, 1) {
            assert!(matches!(error.kind(), Error::SplitMismatch { key: k, .. } if *k == key), "{error}");
        }
    }
    let whole = Builder::new(3).tensor("c", &[40], GgmlType::I8, &[2; 40]);
    for error in replaced(1, whole, 1) {
        assert!(matches!(error.kind(), Error::MissingKey { key } if key == "split.count"), "{error}");
    }
    for error in replaced(2, shard(2, 3, 4, &["b"]), 2) {
        assert!(matches!(error.kind(), Error::DuplicateAcrossShards { .. }), "{error}");
        assert!(error.to_string().contains("\"b\"") && error.to_string().contains("00001-of-00003"), "{error}");
    }
    // A shard that is malformed in itself.
    let mut bad = Builder::new(3);
    bad.tensor_count = Some(1 << 60);
    for error in replaced(1, bad, 1) {
        assert!(matches!(error.kind(), Error::Count { .. }), "{error}");
    }
}

#[test]
fn tensors_are_counted_over_all_shards() {
    let folder = tempfile::tempdir().unwrap();
    for (no, tensors) in [&["a"][..], &["b"]].iter().enumerate() {
        std::fs::write(path(folder.path(), no as u64, 2), shard(no as u64, 2, 3, tensors).build()).unwrap();
    }
    let error = GgufFile::open(&path(folder.path(), 0, 2)).unwrap_err();
    let counted = matches!(error.kind(), Error::SplitMismatch { key: "split.tensors.count", expected: 2, found: 3 });
    assert!(counted, "{error}");
}

#[test]
fn a_shard_needs_its_name() {
    let folder = tempfile::tempdir().unwrap();
    three(folder.path());
    for name in ["renamed.gguf", "a model-00002-of-00003.gguf.bak", "a model-00003-of-00004.gguf"] {
        let path = folder.path().join(name);
        std::fs::copy(self::path(folder.path(), 1, 3), &path).unwrap();
        let error = GgufFile::open(&path).unwrap_err();
        assert!(matches!(error.kind(), Error::SplitName { shard: 2, count: 3 }), "{error}");
        assert!(error.to_string().contains("-00002-of-00003.gguf"), "{error}");
    }
    let open = |builder: Builder| {
        let path = folder.path().join("x-00001-of-00001.gguf");
        std::fs::write(&path, builder.build()).unwrap();
        GgufFile::open(&path)
    };
    for (no, count) in [(3, 3), (0, 65_535)] {
        let error = open(shard(no, count, 1, &["a"])).unwrap_err();
        assert!(matches!(error.kind(), Error::SplitName { .. }), "{no} {count}: {error}");
    }
    let wrong = Builder::new(3).pair("split.count", &Value::String("2".into()));
    assert!(matches!(open(wrong).unwrap_err().kind(), Error::WrongType { .. }));
    let negative = Builder::new(3).pair("split.count", &Value::I32(-1));
    assert!(matches!(open(negative).unwrap_err().kind(), Error::OutOfRange { .. }));
    let no_number = Builder::new(3).pair("split.count", &Value::U16(2));
    assert!(matches!(open(no_number).unwrap_err().kind(), Error::MissingKey { .. }));
    let one = Builder::new(3).pair("split.count", &Value::U16(1));
    assert!(open(one).is_ok(), "one shard is the whole model");
    assert!(open(shard(0, 0, 1, &["a"])).is_ok(), "what llama.cpp writes when it merges shards");
}

#[test]
fn a_file_that_was_shortened_is_an_error_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    three(folder.path());
    let file = GgufFile::open(&path(folder.path(), 0, 3)).unwrap();
    let cut = path(folder.path(), 1, 3);
    let len = std::fs::metadata(&cut).unwrap().len();
    let handle = std::fs::OpenOptions::new().write(true).open(&cut).unwrap();
    handle.set_len(len - 1).unwrap();
    let error = file.check("c").unwrap_err();
    assert!(matches!(error.kind(), Error::Shortened { was, now } if *was == len && *now == len - 1), "{error}");
    assert!(error.to_string().contains("00002-of-00003"), "{error}");
    for name in ["a", "b", "d", "no such tensor"] {
        file.check(name).unwrap();
    }
    let copy = folder.path().join("copy.gguf");
    assert!(matches!(file.save(&copy).unwrap_err().kind(), Error::Shortened { .. }));
    assert!(!copy.exists());
    handle.set_len(len + 1).unwrap();
    file.check("c").unwrap(); // longer does no harm
}
