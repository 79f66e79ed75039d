//! Norm, rotation and storing of a ragged batch.

use super::ragged::{Batch, LAYER, Shape};
use super::random::rounded;
use super::{Claims, ELEMENTWISE, assert_close, for_cases, reference};
use crate::{Backend, DType};

/// [`Backend::norm_rope_store`] into an f32 cache.
pub fn rows_are_stored_in_f32<B: Backend>(backend: &B, _: &Claims) {
    for_cases(12, &Shape::strategy(), |shape| stores(backend, &Batch::new(&shape, DType::F32)));
}

/// [`Backend::norm_rope_store`] into a bf16 cache.
pub fn rows_are_stored_in_bf16<B: Backend>(backend: &B, _: &Claims) {
    for_cases(12, &Shape::strategy(), |shape| stores(backend, &Batch::new(&shape, DType::Bf16)));
}

fn stores<B: Backend>(backend: &B, batch: &Batch) {
    let (qkv, cache) = batch.store(backend);
    queries_are_rotated(backend, batch, &backend.download(&qkv));
    let (keys, values) = backend.read_kv_cache(&cache, LAYER);
    let width = batch.heads.kv_size();
    let dtype = batch.spec.dtype;
    let mut expected = batch.cached.clone();
    let (mut got_keys, mut expected_keys) = (Vec::new(), Vec::new());
    for row in 0..batch.rows() {
        let Ok(slot) = usize::try_from(batch.slot_mapping[row]) else { continue };
        let at = slot * width..(slot + 1) * width;
        let norm = batch.qk_norm.as_ref().map(|(_, k, eps)| (&k[..], *eps));
        for head in 0..batch.heads.num_kv_heads {
            let key = batch.head(&batch.qkv, row, batch.heads.q_size(), head);
            expected_keys.extend(reference::norm_rope(key, norm, batch.rope_row(row)));
            let value = batch.head(&batch.qkv, row, batch.heads.q_size() + width, head);
            let dim = value.len();
            expected.1[at.start + head * dim..][..dim].copy_from_slice(&rounded(dtype, value));
        }
        got_keys.extend_from_slice(&keys[at.clone()]);
        // Keys have been compared where they were stored; elsewhere they must not have changed.
        expected.0[at.clone()].copy_from_slice(&keys[at]);
    }
    if dtype == DType::F32 {
        assert_close(backend, "stored keys", &got_keys, &expected_keys, ELEMENTWISE);
    } else {
        // Rounded once from f32 arithmetic, to the nearest bf16 or, next to a tie, to its neighbour.
        let largest = expected_keys.iter().fold(0f64, |largest, key| largest.max(key.abs()));
        let near = |(&got, &key): (&f32, &f64)| (f64::from(got) - key).abs() <= key.abs() / 256.0 + 1e-6 * largest;
        assert!(got_keys.iter().zip(&expected_keys).all(near), "stored keys on {}", backend.describe());
    }
    let same = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()));
    assert!(same(&keys, &expected.0), "keys of other slots changed on {}", backend.describe());
    assert!(same(&values, &expected.1), "values differ on {}", backend.describe());
    for other in (0..batch.spec.num_layers).filter(|&layer| layer != LAYER) {
        let (keys, values) = backend.read_kv_cache(&cache, other);
        let untouched = keys.iter().chain(&values).all(|&x| x == 0.0);
        assert!(untouched, "layer {other} changed on {}", backend.describe());
    }
}

fn queries_are_rotated<B: Backend>(backend: &B, batch: &Batch, qkv: &[f32]) {
    let norm = batch.qk_norm.as_ref().map(|(q, _, eps)| (&q[..], *eps));
    let (mut got, mut expected) = (Vec::new(), Vec::new());
    for row in 0..batch.rows() {
        for head in 0..batch.heads.num_heads {
            got.extend_from_slice(batch.head(qkv, row, 0, head));
            expected.extend(reference::norm_rope(batch.head(&batch.qkv, row, 0, head), norm, batch.rope_row(row)));
        }
    }
    assert_close(backend, "queries", &got, &expected, ELEMENTWISE);
}
