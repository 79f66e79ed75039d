//! Rows of a weight by id.

use super::promise::Promise;
use super::random::{Random, StoredMatrix, room};
use crate::Backend;

/// Ids in any order, repeated, from every promised type.
pub(super) fn embedding_gathers_rows<B: Backend>(backend: &B, promise: &Promise) {
    let mut random = Random::new(6);
    for &dtype in &promise.dtypes {
        let stored = StoredMatrix::new(&mut random, dtype, 37, 2 * dtype.block_size());
        let weight = stored.pack(backend);
        for count in [1, 2, 7, 64] {
            let ids: Vec<u32> = (0..count).map(|_| random.below(stored.rows) as u32).collect();
            let mut out = room(backend, 64, stored.cols);
            backend.embedding(&weight, &ids, &mut out);
            let expected: Vec<f32> = ids.iter().flat_map(|&id| stored.row(id as usize).to_vec()).collect();
            assert_eq!(backend.download(&out), expected, "{dtype}, {count} ids, on {}", backend.describe());
        }
    }
}

/// Ids run on from one part of a stacked weight to the next.
pub(super) fn embedding_of_stacked_weights<B: Backend>(backend: &B, promise: &Promise) {
    let mut random = Random::new(7);
    let cols = promise.dtypes.iter().map(|d| d.block_size()).max().unwrap_or(1);
    let stored: Vec<_> = promise.dtypes.iter().map(|&dtype| StoredMatrix::new(&mut random, dtype, 5, cols)).collect();
    let rows: Vec<&[f32]> = stored.iter().flat_map(|s| s.values.chunks(cols)).collect();
    let weight = backend.concat(stored.iter().map(|s| s.pack(backend)).collect()).expect("of equal columns");
    // All of them, and a few: then some parts give none.
    let mut all: Vec<u32> = (0..rows.len() as u32).collect();
    random.shuffle(&mut all);
    for ids in [&all[..], &all[..2], &all[..1], &[0, 0]] {
        let mut out = room(backend, rows.len(), cols);
        backend.embedding(&weight, ids, &mut out);
        let expected: Vec<f32> = ids.iter().flat_map(|&id| rows[id as usize].to_vec()).collect();
        assert_eq!(backend.download(&out), expected, "{ids:?} on {}", backend.describe());
    }
}
