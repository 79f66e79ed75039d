//! Causal attention over the paged cache, one sequence after the other.

use candle_core::{Result, Tensor};
use nanovllm_backend::{AttentionOptions, Context, HeadLayout};

use crate::kv_cache::KvCache;
use crate::matrix::Matrix;
use crate::rows::softmax;

/// The most scores held at once, over all heads (16 MiB of f32); rows with more are computed in several parts.
const SCORES: usize = 4 << 20;

/// Causal attention of the query part of `qkv` over `layer`: `[rows, num_heads * head_dim]`.
pub(crate) fn attention(
    qkv: &Tensor,
    heads: &HeadLayout,
    options: &AttentionOptions<'_, Matrix>,
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
        // What no row sees is not read: it may hold NaN, and there may be much of it.
        let oldest = first_seen(len - rows, options.window);
        let (keys, values) = cache.gather(layer, context.block_table(s), oldest..len)?;
        let most = (SCORES / (heads.num_heads * (len - oldest))).max(1);
        for first in (0..rows).step_by(most) {
            let count = most.min(rows - first);
            // The first of these rows stands here, and the last of them sees all before `end`.
            let position = len - rows + first;
            let (seen, end) = (first_seen(position, options.window), position + count);
            let seen_of = |x: &Tensor| x.narrow(0, seen - oldest, end - seen);
            let queries = queries.narrow(0, start + first, count)?;
            out.push(attend(&queries, &seen_of(&keys)?, &seen_of(&values)?, heads, options)?);
        }
    }
    Tensor::cat(&out, 0)
}

/// The first position that the row at `position` sees.
fn first_seen(position: usize, window: Option<usize>) -> usize {
    window.map_or(0, |window| (position + 1).saturating_sub(window))
}

/// Attention of the last `n` tokens of a sequence: `queries` is `[n, num_heads * head_dim]`, `keys` and `values` are
/// `[len, num_kv_heads, head_dim]`; the first query sees from the first of them on, the last query up to the last.
fn attend(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    heads: &HeadLayout,
    options: &AttentionOptions<'_, Matrix>,
) -> Result<Tensor> {
    let HeadLayout { num_heads, num_kv_heads, head_dim } = *heads;
    let (n, len, group) = (queries.dim(0)?, keys.dim(0)?, num_heads / num_kv_heads);
    // The query heads that share a key head are stacked as rows of one product.
    let q = queries.reshape((n, num_kv_heads, group, head_dim))?.permute((1, 2, 0, 3))?;
    let q = q.reshape((num_kv_heads, group * n, head_dim))?;
    let k = keys.permute((1, 2, 0))?.contiguous()?; // [num_kv_heads, head_dim, len]
    let v = values.transpose(0, 1)?.contiguous()?; // [num_kv_heads, len, head_dim]
    let mut scores = (q.matmul(&k)? * options.scale)?;
    if let Some(cap) = options.soft_cap.map(f64::from) {
        scores = ((scores / cap)?.tanh()? * cap)?;
    }
    if n > 1 {
        let mask = causal_mask(n, len, options.window, queries)?;
        let by_row = scores.reshape((num_heads, n, len))?.broadcast_add(&mask)?;
        scores = by_row.reshape((num_kv_heads, group * n, len))?;
    }
    let weights = match options.sinks {
        None => softmax(&scores)?,
        Some(sinks) => {
            // One more score for each query head, which takes its part of the softmax and has no value.
            let sinks = sinks.data().reshape((num_kv_heads, group, 1, 1))?.broadcast_as((num_kv_heads, group, n, 1))?;
            let sinks = sinks.reshape((num_kv_heads, group * n, 1))?;
            softmax(&Tensor::cat(&[&scores, &sinks], 2)?)?.narrow(2, 0, len)?.contiguous()?
        }
    };
    let out = weights.matmul(&v)?.reshape((num_kv_heads, group, n, head_dim))?;
    out.permute((2, 0, 1, 3))?.reshape((n, num_heads * head_dim))
}

/// 0 where row `i` of the last `n` of `len` positions may look, minus infinity elsewhere: `[n, len]`, on the device of
/// `like`.
fn causal_mask(n: usize, len: usize, window: Option<usize>, like: &Tensor) -> Result<Tensor> {
    let mask = (len - n..len).flat_map(|row| {
        let seen = first_seen(row, window)..=row;
        (0..len).map(move |position| if seen.contains(&position) { 0f32 } else { f32::NEG_INFINITY })
    });
    Tensor::from_iter(mask, like.device())?.reshape((n, len))
}
