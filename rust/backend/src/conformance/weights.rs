//! Weights in every type: packed, stacked, unpacked and refused.

use super::check::assert_close;
use super::linear::product;
use super::promise::Promise;
use super::random::{Random, StoredMatrix, random_tensor, room};
use super::reference;
use crate::{DType, Error, FilePart, Inspect, WeightPart};

/// NMSE of values a device keeps as another type: a scale rounded to f16.
const RESTORED: f64 = 1e-6;

/// Every promised type unpacks to the stored values, exactly where the device keeps the type.
pub(super) fn weights_unpack_as_stored<B: Inspect>(backend: &B, promise: &Promise) {
    let mut random = Random::new(2);
    for &dtype in &promise.dtypes {
        for (rows, blocks) in [(1, 1), (5, 3), (16, 2), (33, 1)] {
            let stored = StoredMatrix::new(&mut random, dtype, rows, blocks * dtype.block_size());
            unpacks(backend, &stored);
        }
    }
}

fn unpacks<B: Inspect>(backend: &B, stored: &StoredMatrix) {
    let StoredMatrix { dtype, rows, cols, .. } = *stored;
    // A file's bytes may lie at any address.
    let shifted: Vec<u8> = std::iter::once(0).chain(stored.data.iter().copied()).collect();
    let part = WeightPart { data: &shifted[1..], ..stored.part() };
    let got = backend.unpack(&backend.pack(&part).expect("as stored"));
    assert_eq!(got, backend.unpack(&stored.pack(backend)), "{dtype} at an odd address on {}", backend.describe());
    if backend.stored_as(dtype, cols) == dtype {
        assert_eq!(got, stored.values, "{dtype}, {rows} rows, on {}", backend.describe());
    } else {
        assert_close(backend, &format!("{dtype} as stored"), &got, &reference::widened(&stored.values), RESTORED);
    }
}

/// Weights of different types and sizes stack by rows; stacks stack too.
pub(super) fn stacked_weights_keep_their_order<B: Inspect>(backend: &B, promise: &Promise) {
    let mut random = Random::new(3);
    let cols = promise.dtypes.iter().map(|d| d.block_size()).max().unwrap_or(1);
    let stored: Vec<_> = promise
        .dtypes
        .iter()
        .zip([3, 16, 1, 20].into_iter().cycle())
        .map(|(&dtype, rows)| StoredMatrix::new(&mut random, dtype, rows, cols))
        .collect();
    let expected: Vec<f32> = stored.iter().flat_map(|s| s.values.iter().copied()).collect();
    let mut parts: Vec<_> = stored.iter().map(|s| s.pack(backend)).collect();
    let tail = parts.split_off(parts.len() / 2);
    let halves = [parts, tail].into_iter().filter(|half| !half.is_empty());
    let halves = halves.map(|half| backend.concat(half).expect("of equal columns")).collect();
    let whole = backend.concat(halves).expect("of equal columns");
    assert_eq!(backend.unpack(&whole), expected, "on {}", backend.describe());
}

/// Bytes, columns and parts that do not fit are errors of their own kind.
pub(super) fn impossible_weights_are_refused<B: Inspect>(backend: &B, promise: &Promise) {
    let mut random = Random::new(4);
    let shape = |outcome: crate::Result<B::Weight>| {
        let error = outcome.map(|_| ()).expect_err("of an impossible shape");
        assert!(matches!(error, Error::Shape { .. }), "{error}");
    };
    for &dtype in &promise.dtypes {
        let block = dtype.block_size();
        let stored = StoredMatrix::new(&mut random, dtype, 4, 2 * block);
        let short = &stored.data[1..];
        shape(backend.pack(&WeightPart { data: short, ..stored.part() }));
        shape(backend.pack(&WeightPart { rows: 5, ..stored.part() }));
        shape(backend.pack(&WeightPart { rows: usize::MAX, ..stored.part() }));
        if block > 1 {
            shape(backend.pack(&WeightPart { cols: 2 * block - 1, ..stored.part() }));
        }
        let wider = StoredMatrix::new(&mut random, dtype, 4, 3 * block);
        shape(backend.concat(vec![stored.pack(backend), wider.pack(backend)]));
    }
    shape(backend.concat(Vec::new()));
    // A weight that no model multiplies with.
    let error = backend.pack(&WeightPart { dtype: DType::I64, rows: 1, cols: 1, data: &[0; 8] }).map(|_| ());
    assert!(matches!(error, Err(Error::UnsupportedDType { dtype: DType::I64, .. })), "{error:?}");
}

/// A type that is not promised is refused by name, or unpacks as stored and multiplies as well as any of its kind.
pub(super) fn other_types_are_refused_or_right<B: Inspect>(backend: &B, promise: &Promise) {
    let mut random = Random::new(5);
    for &dtype in DType::ALL.iter().filter(|d| !promise.dtypes.contains(d)) {
        let cols = 2 * dtype.block_size().max(32);
        let bytes = dtype.bytes_for(3 * cols).expect("whole blocks");
        let zeros = vec![0; bytes];
        match backend.pack(&WeightPart { dtype, rows: 3, cols, data: &zeros }) {
            Err(Error::UnsupportedDType { dtype: named, .. }) => assert_eq!(named, dtype),
            Err(error) => panic!("{dtype} on {}: {error}", backend.describe()),
            Ok(_) => {
                let stored = StoredMatrix::new(&mut random, dtype, 3, cols);
                unpacks(backend, &stored);
                product(backend, promise, &mut random, &stored, 6);
            }
        }
    }
}

/// A weight that stays in its file, also beside one that is packed, is computed on as one that was packed, to the last bit, on a
/// device that has such. Bytes of another length than the matrix has are refused.
pub(super) fn weights_in_files<B: Inspect>(backend: &B, promise: &Promise) {
    let mut random = Random::new(41);
    for &dtype in &promise.dtypes {
        let cols = if dtype.block_size() == 1 { 97 } else { 2 * dtype.block_size() };
        let [stored, other] = [37, 21].map(|rows| StoredMatrix::new(&mut random, dtype, rows, cols));
        // At an odd address.
        let bytes: Vec<u8> = std::iter::once(0).chain(stored.data.iter().copied()).collect();
        let file = std::sync::Arc::new(nanovllm_gguf::FileBytes::from(bytes));
        let part = FilePart::new(&file, 1..1 + stored.data.len()).expect("all of it");
        let map = |part: &FilePart| backend.mapped(&WeightPart { data: &stored.data, ..stored.part() }, part);
        let Some(mapped) = map(&part).expect("a type that is packed") else { return };
        let mapped_again = || map(&part).expect("as before").expect("as before");
        let concat = |parts| backend.concat(parts).expect("of equal columns");
        let pairs = [
            (mapped, stored.pack(backend)),
            (
                concat(vec![other.pack(backend), mapped_again()]),
                concat(vec![other.pack(backend), stored.pack(backend)]),
            ),
            (
                concat(vec![mapped_again(), other.pack(backend)]),
                concat(vec![stored.pack(backend), other.pack(backend)]),
            ),
        ];
        for (i, (mapped, packed)) in pairs.iter().enumerate() {
            let outputs = if i == 0 { stored.rows } else { stored.rows + other.rows };
            let what = format!("{dtype} in its file, case {i}");
            assert_eq!(backend.unpack(mapped), backend.unpack(packed), "{what}");
            for rows in [1, 11] {
                let (x, _) = random_tensor(backend, &mut random, rows, cols);
                let ids: Vec<u32> = (0..rows).map(|_| random.below(outputs) as u32).collect();
                let [got, expected] = [mapped, packed].map(|weight| {
                    let [mut out, mut looked_up] = [outputs, cols].map(|cols| room(backend, rows, cols));
                    backend.linear(&x, weight, None, &mut out);
                    backend.embedding(weight, &ids, &mut looked_up);
                    [backend.download(&out), backend.download(&looked_up)]
                });
                assert_eq!(got, expected, "{rows} rows with {what}");
            }
        }
        let short = FilePart::new(&file, 1..stored.data.len()).expect("a part of it");
        assert!(matches!(map(&short), Err(Error::Shape { .. })), "{dtype}, a byte short");
    }
}
