//! Rotation and storing of keys and values, and causal attention over the paged cache, one sequence after the other.

use candle_core::{Result, Tensor};
use nanovllm_backend::{Context, HeadLayout};

use crate::kv_cache::KvCache;
use crate::rows::{rms_norm, rotate, softmax};

/// Scores held at once, over all heads: long prompts attend in runs of rows.
const SCORES: usize = 4 << 20;

/// Norms and rotates the queries and keys of `qkv` and stores keys and values; returns `qkv` with the new queries.
///
/// `rope` holds the rotary table's row of each row of `qkv`.
pub(crate) fn norm_rope_store(
    qkv: &Tensor,
    heads: &HeadLayout,
    qk_norm: Option<(&Tensor, &Tensor, f32)>,
    rope: &Tensor,
    cache: &mut KvCache,
    layer: usize,
    slots: &[i32],
) -> Result<Tensor> {
    let rows = qkv.dim(0)?;
    let HeadLayout { num_heads, num_kv_heads, head_dim } = *heads;
    let (q_size, kv_size) = (heads.q_size(), heads.kv_size());
    let rotated = |start, count: usize, norm: Option<(&Tensor, f32)>| {
        let x = qkv.narrow(1, start, count * head_dim)?.reshape((rows, count, head_dim))?;
        let x = if let Some((weight, eps)) = norm { rms_norm(&x, weight, eps)? } else { x };
        rotate(&x, rope)?.reshape((rows, count * head_dim))
    };
    let queries = rotated(0, num_heads, qk_norm.map(|(q, _, eps)| (q, eps)))?;
    let keys = rotated(q_size, num_kv_heads, qk_norm.map(|(_, k, eps)| (k, eps)))?;
    let values = qkv.narrow(1, q_size + kv_size, kv_size)?;
    cache.store(layer, &keys, &values, slots)?;
    Tensor::cat(&[&queries, &keys, &values.contiguous()?], 1)
}

/// Causal attention of the query part of `qkv` over `layer`: `[rows, num_heads * head_dim]`.
pub(crate) fn attention(
    qkv: &Tensor,
    heads: &HeadLayout,
    cache: &KvCache,
    layer: usize,
    context: &Context<'_>,
) -> Result<Tensor> {
    let queries = qkv.narrow(1, 0, heads.q_size())?;
    let mut out = Vec::new();
    for s in 0..context.num_seqs() {
        let (start, end) = (context.cu_seqlens_q[s] as usize, context.cu_seqlens_q[s + 1] as usize);
        let (rows, len) = (end - start, context.context_lens[s] as usize);
        if rows == 0 {
            continue;
        }
        let (keys, values) = cache.gather(layer, context.block_table(s), len)?;
        let run = (SCORES / (heads.num_heads * len)).max(1);
        for first in (0..rows).step_by(run) {
            let count = run.min(rows - first);
            // The last of these rows sees this many positions, and those before it one fewer each.
            let visible = len - rows + first + count;
            let (keys, values) = (keys.narrow(0, 0, visible)?, values.narrow(0, 0, visible)?);
            out.push(attend(&queries.narrow(0, start + first, count)?, &keys, &values, heads)?);
        }
    }
    Tensor::cat(&out, 0)
}

/// Attention of the last `n` tokens of a sequence: `queries` is `[n, num_heads * head_dim]`, `keys` and `values` are
/// `[len, num_kv_heads, head_dim]`; the last query sees all of them.
fn attend(queries: &Tensor, keys: &Tensor, values: &Tensor, heads: &HeadLayout) -> Result<Tensor> {
    let HeadLayout { num_heads, num_kv_heads, head_dim } = *heads;
    let (n, len, group) = (queries.dim(0)?, keys.dim(0)?, num_heads / num_kv_heads);
    // The heads that share a key head are more rows of one product.
    let q = queries.reshape((n, num_kv_heads, group, head_dim))?.permute((1, 2, 0, 3))?;
    let q = q.reshape((num_kv_heads, group * n, head_dim))?;
    let k = keys.permute((1, 2, 0))?.contiguous()?; // [num_kv_heads, head_dim, len]
    let v = values.transpose(0, 1)?.contiguous()?; // [num_kv_heads, len, head_dim]
    let mut scores = (q.matmul(&k)? * (head_dim as f64).sqrt().recip())?;
    if n > 1 {
        let by_row = scores.reshape((num_heads, n, len))?.broadcast_add(&causal_mask(n, len, queries)?)?;
        scores = by_row.reshape((num_kv_heads, group * n, len))?;
    }
    let out = softmax(&scores)?.matmul(&v)?.reshape((num_kv_heads, group, n, head_dim))?;
    out.permute((2, 0, 1, 3))?.reshape((n, num_heads * head_dim))
}

/// 0 where row `i` of the last `n` of `len` positions may look, minus infinity after it: `[n, len]`, on the device of `like`.
fn causal_mask(n: usize, len: usize, like: &Tensor) -> Result<Tensor> {
    let mask = (0..n).flat_map(|i| {
        let visible = len - n + i + 1;
        (0..len).map(move |position| if position < visible { 0f32 } else { f32::NEG_INFINITY })
    });
    Tensor::from_iter(mask, like.device())?.reshape((n, len))
}
