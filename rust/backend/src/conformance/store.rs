//! Norm, rotation and storing of a ragged batch.

use super::check::{assert_close, for_cases};
use super::promise::{ELEMENTWISE, Promise};
use super::ragged::{Batch, LAYER, Part};
use super::random::rounded;
use super::shape::{BatchShape, NormKind};
use crate::{DType, HeadLayout, Inspect};

/// [`Backend::norm_rope_store`](crate::Backend::norm_rope_store) into an f32 cache.
pub(super) fn rows_are_stored_in_f32<B: Inspect>(backend: &B, _: &Promise) {
    for_cases(16, &BatchShape::with_options(), |shape| stores(backend, &Batch::new(&shape, DType::F32)));
}

/// [`Backend::norm_rope_store`](crate::Backend::norm_rope_store) into a bf16 cache.
pub(super) fn rows_are_stored_in_bf16<B: Inspect>(backend: &B, _: &Promise) {
    for_cases(16, &BatchShape::with_options(), |shape| stores(backend, &Batch::new(&shape, DType::Bf16)));
}

/// Every norm of queries, keys and values with every kind of rotation, in layers of their own and such that share.
pub(super) fn norms_and_rotations_combine<B: Inspect>(backend: &B, _: &Promise) {
    let heads = HeadLayout { num_heads: 4, num_kv_heads: 2, head_dim: 40 };
    let mut shape = BatchShape::plain(heads, 5, vec![(7, 1), (0, 4), (3, 6)], 15);
    let norms = NormKind::ALL;
    for (q, k, v) in norms.into_iter().flat_map(|q| norms.map(|k| (q, k))).flat_map(|(q, k)| norms.map(|v| (q, k, v))) {
        for rotated in [None, Some(2), Some(18), Some(32), Some(40)] {
            shape = BatchShape { norms: [q, k, v], rotated, seed: shape.seed + 1, ..shape };
            for (shared, dtype) in [(false, DType::F32), (false, DType::Bf16), (true, DType::F32)] {
                stores(backend, &Batch::new(&BatchShape { shared, ..shape.clone() }, dtype));
            }
        }
    }
}

fn stores<B: Inspect>(backend: &B, batch: &Batch) {
    let (qkv, cache) = batch.store(backend);
    let qkv = backend.download(&qkv);
    let mut queries = Compared::default();
    for row in 0..batch.rows() {
        queries.add(batch, row, Part::Queries, batch.part(&qkv, row, Part::Queries));
    }
    queries.check(backend, batch, Part::Queries, DType::F32);

    let (keys, values) = backend.read_kv_cache(&cache, LAYER);
    for (part, got, before) in [(Part::Keys, &keys, &batch.cached.0), (Part::Values, &values, &batch.cached.1)] {
        let width = batch.heads.kv_size();
        let (mut compared, mut expected) = (Compared::default(), before.clone());
        let slots = batch.slot_mapping.iter().enumerate().filter(|_| batch.stores());
        for (row, slot) in slots.filter_map(|(row, &slot)| Some((row, usize::try_from(slot).ok()?))) {
            let at = slot * width..(slot + 1) * width;
            compared.add(batch, row, part, &got[at.clone()]);
            // Compared where they were stored; elsewhere they must not have changed.
            expected[at.clone()].copy_from_slice(&got[at]);
        }
        compared.check(backend, batch, part, batch.spec.dtype);
        assert!(same(got, &expected), "{} of other slots changed on {}", name(part), backend.describe());
    }
    for other in (0..batch.spec.layers.len()).filter(|&other| other != LAYER) {
        let (other_keys, other_values) = backend.read_kv_cache(&cache, other);
        if batch.spec.owner(other) == Some(LAYER) {
            let shared = same(&other_keys, &keys) && same(&other_values, &values);
            assert!(shared, "layer {other} reads something else on {}", backend.describe());
        } else {
            let untouched = other_keys.iter().chain(&other_values).all(|&x| x == 0.0);
            assert!(untouched, "layer {other} changed on {}", backend.describe());
        }
    }
}

/// One part of some rows.
#[derive(Default)]
struct Compared {
    got: Vec<f32>,
    given: Vec<f32>,
    expected: Vec<f64>,
}

impl Compared {
    fn add(&mut self, batch: &Batch, row: usize, part: Part, got: &[f32]) {
        self.got.extend_from_slice(got);
        self.given.extend_from_slice(batch.part(&batch.qkv, row, part));
        self.expected.extend(batch.normed_and_rotated(row, part));
    }

    /// Panics unless the device got them right and holds them as `dtype`.
    fn check<B: Inspect>(&self, backend: &B, batch: &Batch, part: Part, dtype: DType) {
        let what = format!("{} of layer {}", name(part), batch.layer);
        if dtype == DType::F32 {
            assert_close(backend, &what, &self.got, &self.expected, ELEMENTWISE);
        } else {
            // Rounded once from f32 arithmetic, to the nearest bf16 or, next to a tie, to its neighbour.
            let largest = self.expected.iter().fold(0f64, |largest, x| largest.max(x.abs()));
            let near = |(&got, &x): (&f32, &f64)| (f64::from(got) - x).abs() <= x.abs() / 256.0 + 1e-6 * largest;
            assert!(self.got.iter().zip(&self.expected).all(near), "{what} on {}", backend.describe());
        }
        let (dim, first) = (batch.heads.head_dim, batch.first_untouched(part));
        let given = rounded(dtype, &self.given);
        let untouched = self.got.chunks(dim).zip(given.chunks(dim)).all(|(got, given)| got[first..] == given[first..]);
        assert!(untouched, "{what} from dimension {first} on changed on {}", backend.describe());
    }
}

fn name(part: Part) -> &'static str {
    match part {
        Part::Queries => "queries",
        Part::Keys => "keys",
        Part::Values => "values",
    }
}

/// Equal, NaN included.
fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()))
}
