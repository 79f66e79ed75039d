//! Causal attention of a ragged batch over the paged cache.

use super::ragged::{Batch, LAYER, Shape};
use super::random::{room, rounded};
use super::{Claims, PRODUCT, assert_close_to_either, for_cases, reference};
use crate::{Backend, DType, HeadLayout};

/// [`Backend::attention`] over an f32 cache.
pub fn attention_over_an_f32_cache<B: Backend>(backend: &B, claims: &Claims) {
    for_cases(12, &Shape::strategy(), |shape| attends(backend, claims, &Batch::new(&shape, DType::F32), 60));
}

/// [`Backend::attention`] over a bf16 cache, whose products may round the queries to bf16.
pub fn attention_over_a_bf16_cache<B: Backend>(backend: &B, claims: &Claims) {
    for_cases(12, &Shape::strategy(), |shape| attends(backend, claims, &Batch::new(&shape, DType::Bf16), 60));
}

/// Contexts of many partitions: a long chunk after a long prefix, beside long decodes.
pub fn attention_of_long_prompts<B: Backend>(backend: &B, claims: &Claims) {
    let heads = HeadLayout { num_heads: 4, num_kv_heads: 2, head_dim: 8 };
    let sequences = vec![(2047, 1), (1600, 512), (255, 1), (256, 1), (0, 300)];
    let shape = Shape { heads, block_size: 32, sequences, normed: false, seed: 14 };
    for dtype in [DType::F32, DType::Bf16] {
        attends(backend, claims, &Batch::new(&shape, dtype), 40);
    }
}

/// Checks the attention of `batch`, at most about `samples` rows of it.
///
/// Keys and values are those the device stored, so that only attention is measured. Slots that hold nothing are NaN.
fn attends<B: Backend>(backend: &B, claims: &Claims, batch: &Batch, samples: usize) {
    let HeadLayout { num_heads, num_kv_heads, head_dim } = batch.heads;
    let (qkv, cache) = batch.store(backend);
    let (keys, values) = backend.read_kv_cache(&cache, LAYER);
    let mut out = room(backend, batch.rows(), batch.heads.q_size());
    let context = batch.context();
    backend.attention(&qkv, &batch.heads, &cache, LAYER, &context, &mut out);
    let (qkv, out) = (backend.download(&qkv), backend.download(&out));

    let block_size = batch.spec.block_size;
    let rounded_qkv = rounded(batch.spec.dtype, &qkv);
    let (mut got, mut exact, mut rounded) = (Vec::new(), Vec::new(), Vec::new());
    let step = (batch.rows() / samples).max(1);
    for s in 0..context.num_seqs() {
        let rows = context.cu_seqlens_q[s] as usize..context.cu_seqlens_q[s + 1] as usize;
        let slot = |position: usize| {
            context.block_table(s)[position / block_size] as usize * block_size + position % block_size
        };
        for row in rows.clone().filter(|row| row % step == 0 || row + 1 == rows.end) {
            let visible = context.context_lens[s] as usize - (rows.end - row - 1);
            for head in 0..num_heads {
                let kv_head = head / (num_heads / num_kv_heads);
                let starts: Vec<usize> = (0..visible).map(|p| (slot(p) * num_kv_heads + kv_head) * head_dim).collect();
                let keys: Vec<&[f32]> = starts.iter().map(|&i| &keys[i..i + head_dim]).collect();
                let values: Vec<&[f32]> = starts.iter().map(|&i| &values[i..i + head_dim]).collect();
                exact.extend(reference::attention(batch.head(&qkv, row, 0, head), &keys, &values));
                rounded.extend(reference::attention(batch.head(&rounded_qkv, row, 0, head), &keys, &values));
                got.extend_from_slice(&out[row * batch.heads.q_size() + head * head_dim..][..head_dim]);
            }
        }
    }
    let limit = if batch.spec.dtype == DType::F32 { PRODUCT } else { claims.half };
    assert_close_to_either(backend, "attention", &got, &exact, &rounded, limit);
}
