//! What is written is read back, and nothing but a complete file appears.
#![allow(clippy::unwrap_used)] // tests

mod common;

use common::strategies::{tensor, value};
use common::values;
use nanovllm_gguf::{Error, GgmlType, GgufFile, GgufWriter, Metadata, TensorSpec, Value};
use proptest::prelude::*;

fn metadata<K: AsRef<str>>(pairs: &[(K, Value)]) -> Metadata {
    let mut map = Metadata::default();
    for (key, value) in pairs {
        map.insert(key.as_ref().to_owned(), value.clone()).unwrap();
    }
    map
}

fn spec(name: &str, dims: &[usize], dtype: GgmlType) -> TensorSpec {
    TensorSpec { name: name.to_owned(), dims: dims.to_vec(), dtype }
}

/// A writer into memory that expects two tensors of 12 bytes.
fn two() -> GgufWriter<Vec<u8>> {
    let specs = [spec("a", &[3], GgmlType::F32), spec("b", &[3, 2], GgmlType::I16)];
    GgufWriter::new(Vec::new(), &Metadata::default(), &specs).unwrap()
}

fn new(specs: &[TensorSpec]) -> Error {
    GgufWriter::new(Vec::new(), &Metadata::default(), specs).err().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_written_is_read(
        pairs in prop::collection::btree_map("[a-zé_.0-9]{1,20}", value(), 0..12),
        tensors in prop::collection::vec(tensor(), 0..6),
        alignment in prop::sample::select(&[None, Some(1u32), Some(8), Some(32), Some(64), Some(4096)][..]),
        pieces in 1usize..5,
    ) {
        let mut map = metadata(&pairs.into_iter().collect::<Vec<_>>());
        if let Some(alignment) = alignment {
            map.set("general.alignment", Value::U32(alignment));
        }
        let specs: Vec<TensorSpec> = tensors
            .iter()
            .enumerate()
            .map(|(i, (dtype, dims, _))| TensorSpec {
                name: format!("t{i}"),
                dims: dims.iter().map(|&dim| dim as usize).collect(),
                dtype: *dtype,
            })
            .collect();
        let data = |i: usize| {
            let (dtype, dims, fill) = &tensors[i];
            let len = dtype.bytes_for(dims.iter().product::<u64>() as usize).unwrap();
            (0..len).map(|at| fill.wrapping_add(at as u8)).collect::<Vec<u8>>()
        };
        let mut writer = GgufWriter::new(Vec::new(), &map, &specs).unwrap();
        for (i, spec) in specs.iter().enumerate() {
            let data = data(i);
            if pieces == 1 {
                writer.tensor(&spec.name, &data).unwrap();
            } else {
                for piece in data.chunks(data.len().div_ceil(pieces)) {
                    writer.append(&spec.name, piece).unwrap();
                }
            }
        }
        let file = GgufFile::from_bytes(writer.into_inner().unwrap()).unwrap();
        prop_assert_eq!(file.version(), 3);
        prop_assert!(file.metadata().iter().eq(map.iter()));
        prop_assert_eq!(file.tensors().len(), specs.len());
        for (i, spec) in specs.iter().enumerate() {
            let (info, view) = (&file.tensors()[i], file.tensor(&spec.name).unwrap());
            prop_assert_eq!((&info.name, view.dtype, view.dims), (&spec.name, spec.dtype, &spec.dims[..]));
            prop_assert_eq!(info.offset % alignment.unwrap_or(32) as usize, 0);
            prop_assert!(view.data == data(i));
        }
    }
}

#[test]
fn every_value_type_in_order() {
    let bytes = GgufWriter::new(Vec::new(), &metadata(&values()), &[]).unwrap().into_inner().unwrap();
    let file = GgufFile::from_bytes(bytes).unwrap();
    let read: Vec<_> = file.metadata().iter().map(|(key, value)| (key, value.clone())).collect();
    assert_eq!(read, values());
}

#[test]
fn nan_keeps_its_bits() {
    let nan = f32::from_bits(0x7fc1_2345);
    let map = metadata(&[("nan", Value::F32(nan))]);
    let bytes = GgufWriter::new(Vec::new(), &map, &[]).unwrap().into_inner().unwrap();
    let file = GgufFile::from_bytes(bytes).unwrap();
    assert!(matches!(file.metadata().get("nan"), Some(Value::F32(v)) if v.to_bits() == nan.to_bits()));
}

#[test]
fn data_come_in_order_and_complete() {
    let mut writer = two();
    assert!(matches!(writer.tensor("b", &[0; 12]), Err(Error::WriteOrder { expected: Some(e), .. }) if e == "a"));
    assert!(matches!(writer.tensor("a", &[0; 11]), Err(Error::WriteSize { expected: 12, got: 11, .. })));
    assert!(matches!(writer.tensor("a", &[0; 13]), Err(Error::WriteSize { expected: 12, got: 13, .. })));
    writer.append("a", &[1; 7]).unwrap();
    assert!(matches!(writer.append("a", &[1; 6]), Err(Error::WriteSize { expected: 12, got: 13, .. })));
    assert!(matches!(writer.append("b", &[1; 6]), Err(Error::WriteOrder { .. })), "a is not complete");
    writer.append("a", &[1; 5]).unwrap();
    writer.tensor("b", &[2; 12]).unwrap();
    let error = writer.append("b", &[]).unwrap_err();
    assert!(matches!(error, Error::WriteOrder { expected: None, .. }));
    assert!(error.to_string().contains("\"b\" where none"), "{error}");
    let file = GgufFile::from_bytes(writer.into_inner().unwrap()).unwrap();
    assert_eq!((file.tensor("a").unwrap().data, file.tensor("b").unwrap().data), (&[1; 12][..], &[2; 12][..]));
}

#[test]
fn an_incomplete_file_is_none() {
    let error = two().into_inner().unwrap_err();
    assert!(matches!(&error, Error::Unfinished { missing: 2, tensor } if tensor == "a"), "{error}");
    let mut writer = two();
    writer.tensor("a", &[0; 12]).unwrap();
    writer.append("b", &[0; 11]).unwrap();
    assert!(matches!(writer.into_inner(), Err(Error::Unfinished { missing: 1, .. })));
}

#[test]
fn what_the_reader_would_refuse_is_not_written() {
    let f32 = GgmlType::F32;
    let twice = [spec("w", &[1], f32), spec("w", &[2], f32)];
    assert!(matches!(new(&twice), Error::DuplicateTensor { .. }));
    assert!(matches!(new(&[spec("", &[1], f32)]), Error::EmptyName { .. }));
    assert!(matches!(new(&[spec(&"w".repeat(64), &[1], f32)]), Error::NameTooLong { limit: 63, .. }));
    assert!(matches!(new(&[spec("w", &[], f32)]), Error::Dimensions { found: 0, .. }));
    assert!(matches!(new(&[spec("w", &[1; 5], f32)]), Error::Dimensions { found: 5, .. }));
    assert!(matches!(new(&[spec("w", &[4, 0], f32)]), Error::ZeroDimension { dim: 1, .. }));
    assert!(matches!(new(&[spec("w", &[33], GgmlType::Q8_0)]), Error::PartialBlock { .. }));
    assert!(matches!(new(&[spec("w", &[usize::MAX, 2], f32)]), Error::TensorTooLarge { .. }));
    // Each size can be expressed, but their sum cannot.
    let two = [spec("v", &[usize::MAX / 8], f32), spec("w", &[usize::MAX / 8], f32), spec("x", &[64], f32)];
    assert!(matches!(new(&two), Error::TensorTooLarge { .. }));
    let refused = |key: &str, value: Value| GgufWriter::new(Vec::new(), &metadata(&[(key, value)]), &[]).err().unwrap();
    assert!(matches!(refused("", Value::U8(1)), Error::EmptyName { .. }));
    assert!(matches!(refused(&"k".repeat(65_536), Value::U8(1)), Error::NameTooLong { limit: 65_535, .. }));
    assert!(matches!(refused("general.alignment", Value::U32(24)), Error::Alignment { .. }));
    assert!(matches!(refused("general.alignment", Value::U64(32)), Error::Alignment { .. }));
}

#[test]
fn the_file_appears_when_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let files = || std::fs::read_dir(folder.path()).unwrap().count();
    let map = metadata(&values());
    let specs = [spec("w", &[100_000], GgmlType::I8)];

    let mut writer = GgufWriter::create(&path, &map, &specs).unwrap();
    writer.append("w", &[1; 10]).unwrap();
    assert!(!path.exists() && files() == 1);
    let error = writer.finish().unwrap_err();
    assert!(matches!(error.kind(), Error::Unfinished { .. }) && error.to_string().contains("model.gguf"), "{error}");
    assert_eq!(files(), 0, "the temporary file is gone");

    for fill in [1, 2] {
        let mut writer = GgufWriter::create(&path, &map, &specs).unwrap();
        writer.tensor("w", &vec![fill; 100_000]).unwrap();
        writer.finish().unwrap();
        assert!(GgufFile::open(&path).unwrap().tensor("w").unwrap().data == vec![fill; 100_000]);
    }
    assert_eq!(files(), 1);
    let error = GgufWriter::create(folder.path(), &map, &specs).err().unwrap();
    assert!(matches!(error.kind(), Error::NotAFile), "{error}");
    let error = GgufWriter::create(&folder.path().join("no/model.gguf"), &map, &specs).err().unwrap();
    assert!(matches!(error.kind(), Error::Write(_)), "{error}");
}

#[cfg(unix)]
#[test]
fn the_file_has_ordinary_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (ours, plain) = (folder.path().join("ours.gguf"), folder.path().join("plain"));
    GgufWriter::create(&ours, &Metadata::default(), &[]).unwrap().finish().unwrap();
    std::fs::write(&plain, "").unwrap();
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&ours), mode(&plain));
}

/// A sink that takes a number of bytes and then fails.
struct Full(usize);

impl std::io::Write for Full {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(buf.len()).ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let specs = [spec("w", &[100], GgmlType::F32)];
    assert!(matches!(GgufWriter::new(Full(10), &Metadata::default(), &specs), Err(Error::Write(_))));
    let mut writer = GgufWriter::new(Full(200), &Metadata::default(), &specs).unwrap();
    assert!(matches!(writer.tensor("w", &[0; 400]), Err(Error::Write(_))));
}

#[test]
fn a_file_is_saved_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy.gguf");
    for version in 1..=3 {
        let original = common::sample(version).pair("split.count", &Value::U16(1)).open();
        original.save(&path).unwrap();
        let copy = GgufFile::open(&path).unwrap();
        assert_eq!(copy.version(), 3);
        let kept = original.metadata().iter().filter(|(key, _)| *key != "split.count");
        assert!(copy.metadata().iter().eq(kept));
        assert_eq!(copy.tensors().len(), original.tensors().len());
        for (ours, theirs) in copy.tensors().iter().zip(original.tensors()) {
            assert_eq!((&ours.name, &ours.dims, ours.dtype), (&theirs.name, &theirs.dims, theirs.dtype));
            assert_eq!(copy.tensor(&ours.name).unwrap().data, original.tensor(&theirs.name).unwrap().data);
        }
    }
}
