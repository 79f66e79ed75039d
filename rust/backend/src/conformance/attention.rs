//! Causal attention of a ragged batch over the paged cache.

use proptest::strategy::Strategy;

use super::check::{assert_within, for_cases, nmse};
use super::promise::{PRODUCT, Promise};
use super::ragged::{Batch, LAYER, Part};
use super::random::{room, rounded};
use super::reference::Attends;
use super::shape::{BatchShape, Options};
use crate::{DType, HeadLayout, Inspect};

/// Plain [`Backend::attention`](crate::Backend::attention) over an f32 cache.
pub(super) fn attention_over_an_f32_cache<B: Inspect>(backend: &B, promise: &Promise) {
    cases(backend, promise, DType::F32, 12, &BatchShape::strategy());
}

/// Plain [`Backend::attention`](crate::Backend::attention) over a bf16 cache, whose products may round the queries to bf16.
pub(super) fn attention_over_a_bf16_cache<B: Inspect>(backend: &B, promise: &Promise) {
    cases(backend, promise, DType::Bf16, 12, &BatchShape::strategy());
}

/// Scales, windows, caps and sinks, in every mixture, over an f32 cache.
pub(super) fn attention_options_over_an_f32_cache<B: Inspect>(backend: &B, promise: &Promise) {
    cases(backend, promise, DType::F32, 24, &BatchShape::with_options());
}

/// Scales, windows, caps and sinks, in every mixture, over a bf16 cache.
pub(super) fn attention_options_over_a_bf16_cache<B: Inspect>(backend: &B, promise: &Promise) {
    cases(backend, promise, DType::Bf16, 24, &BatchShape::with_options());
}

fn cases<B: Inspect>(
    backend: &B,
    promise: &Promise,
    dtype: DType,
    count: u32,
    strategy: &impl Strategy<Value = BatchShape>,
) {
    for_cases(count, strategy, |shape| attends(backend, promise, &Batch::new(&shape, dtype), 60));
}

/// Contexts of many partitions: a long chunk after a long prefix, beside long decodes.
pub(super) fn attention_of_long_prompts<B: Inspect>(backend: &B, promise: &Promise) {
    let sequences = vec![(2047, 1), (1600, 512), (255, 1), (256, 1), (0, 300)];
    let shape = BatchShape::plain(LONG, 32, sequences, 14);
    for dtype in [DType::F32, DType::Bf16] {
        attends(backend, promise, &Batch::new(&shape, dtype), 40);
    }
}

/// Windows much shorter than the context, that begin and end beside a device's borders and skip what lies before.
pub(super) fn windows_of_long_prompts<B: Inspect>(backend: &B, promise: &Promise) {
    let sequences = vec![(2047, 1), (1500, 80), (767, 1), (768, 2), (255, 1), (0, 300)];
    let shape = BatchShape::plain(LONG, 32, sequences, 16);
    for (i, window) in [1, 2, 255, 256, 257, 600, 5000].into_iter().enumerate() {
        let soft_cap = (i % 2 == 1).then_some(20.0);
        let sinks = if i % 3 == 1 { vec![-5.0, 4.0] } else { Vec::new() };
        let options = Options { window: Some(window), soft_cap, sinks, ..Options::default() };
        let shape = BatchShape { options, sliding: i % 2 == 0, shared: i % 3 == 2, ..shape.clone() };
        for dtype in [DType::F32, DType::Bf16] {
            attends(backend, promise, &Batch::new(&shape, dtype), 40);
        }
    }
    // More scores than a device may hold at once.
    let options = Options { window: Some(1300), ..Options::default() };
    let shape = BatchShape { options, sequences: vec![(1600, 600)], ..shape };
    attends(backend, promise, &Batch::new(&shape, DType::Bf16), 40);
}

const LONG: HeadLayout = HeadLayout { num_heads: 4, num_kv_heads: 2, head_dim: 8 };

/// Checks the attention of `batch`, at most about `samples` rows of it.
///
/// Keys and values are those the device stored, so that only attention is measured. Slots that hold nothing, and such that no
/// row's window reaches, are NaN.
fn attends<B: Inspect>(backend: &B, promise: &Promise, batch: &Batch, samples: usize) {
    let HeadLayout { num_heads, num_kv_heads, head_dim } = batch.heads;
    let (qkv, cache) = batch.store(backend);
    let (keys, values) = backend.read_kv_cache(&cache, LAYER);
    let mut out = room(backend, batch.rows(), batch.heads.q_size());
    batch.attention(backend, &qkv, &cache, &mut out);
    let (qkv, out) = (backend.download(&qkv), backend.download(&out));

    let (context, block_size) = (batch.context(), batch.spec.block_size);
    let rounded_qkv = rounded(batch.spec.dtype, &qkv);
    let (mut got, mut exact, mut rounded) = (Vec::new(), Vec::new(), Vec::new());
    let step = (batch.rows() / samples).max(1);
    for s in 0..context.num_seqs() {
        let rows = context.cu_seqlens_q[s] as usize..context.cu_seqlens_q[s + 1] as usize;
        let slot = |position: usize| {
            context.block_table(s)[position / block_size] as usize * block_size + position % block_size
        };
        for row in rows.clone().filter(|row| row % step == 0 || row + 1 == rows.end) {
            let position = context.context_lens[s] as usize - (rows.end - row);
            let seen = batch.options.first_seen(position)..=position;
            for head in 0..num_heads {
                let kv_head = head / (num_heads / num_kv_heads);
                let starts = seen.clone().map(|p| (slot(p) * num_kv_heads + kv_head) * head_dim);
                let (keys, values): (Vec<&[f32]>, Vec<&[f32]>) =
                    starts.map(|i| (&keys[i..i + head_dim], &values[i..i + head_dim])).unzip();
                let attends = Attends {
                    scale: batch.scale(),
                    soft_cap: batch.options.soft_cap.map(f64::from),
                    sink: batch.options.sinks.get(head).copied().map(f64::from),
                };
                for (qkv, expected) in [(&qkv, &mut exact), (&rounded_qkv, &mut rounded)] {
                    let query = &batch.part(qkv, row, Part::Queries)[head * head_dim..][..head_dim];
                    expected.extend(attends.attention(query, &keys, &values));
                }
                got.extend_from_slice(&out[row * batch.heads.q_size() + head * head_dim..][..head_dim]);
            }
        }
    }
    let limit = if batch.spec.dtype == DType::F32 { PRODUCT } else { promise.half };
    assert_within(backend, "attention", nmse(&got, &exact).min(nmse(&got, &rounded)), limit);
}
