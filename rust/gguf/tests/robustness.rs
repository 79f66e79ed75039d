//! Opening a file returns whatever its bytes are, and whatever was written is read back.
#![allow(clippy::unwrap_used)] // tests

mod common;

use common::strategies::{edit, tensor, value};
use common::{Builder, sample};
use nanovllm_gguf::{GgmlType, GgufFile, Value};
use proptest::prelude::*;

/// Opens a file and reads all there is in it. An error is fine as long as it has a text.
fn exercise(bytes: Vec<u8>) {
    match GgufFile::from_bytes(bytes) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(file) => {
            for info in file.tensors() {
                let view = file.tensor(&info.name).expect("a tensor of the table");
                assert_eq!(view.data.len(), info.len);
                let _ = view.to_f32();
                file.release(&view);
            }
            for (key, value) in file.metadata().iter() {
                assert_eq!(file.metadata().get(key).map(Value::type_name), Some(value.type_name()));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn edited_files_never_panic(
        version in 1u32..=3,
        edits in prop::collection::vec((edit(), any::<prop::sample::Index>()), 1..5),
    ) {
        let mut bytes = sample(version).build();
        for (edit, at) in edits {
            let at = at.index(bytes.len() + 1);
            edit.apply(&mut bytes, at);
        }
        exercise(bytes);
    }

    #[test]
    fn noise_after_the_magic_never_panics(version in 0u32..5, noise in prop::collection::vec(any::<u8>(), 0..400)) {
        exercise([&b"GGUF"[..], &version.to_le_bytes(), &noise].concat());
        // Small counts let the noise through to the parsers behind them.
        let counts = [u64::from(version % 2), 1].map(u64::to_le_bytes).concat();
        exercise([&b"GGUF\x03\0\0\0"[..], &counts, &noise].concat());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_written_is_read(
        version in 1u32..=3,
        pairs in prop::collection::btree_map("[a-zé_.0-9]{1,20}", value(), 0..12),
        tensors in prop::collection::vec(tensor(), 0..6),
        alignment in prop::sample::select(&[8usize, 32, 64][..]),
    ) {
        let mut builder = Builder::new(version).pair("general.alignment", &Value::U32(alignment as u32));
        builder.alignment = alignment;
        for (key, value) in &pairs {
            builder = builder.pair(key, value);
        }
        let data = |dtype: GgmlType, dims: &[u64], fill| {
            vec![fill; dtype.bytes_for(dims.iter().product::<u64>() as usize).unwrap()]
        };
        for (i, (dtype, dims, fill)) in tensors.iter().enumerate() {
            builder = builder.tensor(&format!("t{i}"), dims, *dtype, &data(*dtype, dims, *fill));
        }
        let file = builder.open();
        prop_assert_eq!(file.version(), version);
        let read: Vec<_> = file.metadata().iter().skip(1).collect();
        let written: Vec<_> = pairs.iter().map(|(key, value)| (key.as_str(), value)).collect();
        prop_assert_eq!(read, written);
        prop_assert_eq!(file.tensors().len(), tensors.len());
        for (i, (dtype, dims, fill)) in tensors.iter().enumerate() {
            let view = file.tensor(&format!("t{i}")).unwrap();
            prop_assert_eq!(view.dtype, *dtype);
            prop_assert_eq!(view.dims.iter().map(|&dim| dim as u64).collect::<Vec<_>>(), dims.clone());
            prop_assert!(view.data == data(*dtype, dims, *fill));
        }
    }
}
