//! Norms and rotation of a row's heads, and storing of its keys and values.

use candle_core::{Result, Tensor};
use nanovllm_backend::{HeadLayout, HeadNorm, HeadNorms, LayerCache};

use crate::kv_cache::KvCache;
use crate::matrix::Matrix;
use crate::rows::{rms_norm, rotate};

/// Norms and rotates the heads of `qkv` and stores its keys and values; returns `qkv` with the new queries. Of a layer that
/// stores nothing, `qkv` is queries alone.
///
/// `rope` holds the rotary table's row of each row of `qkv`.
pub(crate) fn norm_rope_store(
    qkv: &Tensor,
    heads: &HeadLayout,
    norms: &HeadNorms<'_, Matrix>,
    rope: Option<&Tensor>,
    cache: &mut KvCache,
    layer: usize,
    slots: &[i32],
) -> Result<Tensor> {
    let HeadLayout { num_heads, num_kv_heads, head_dim } = *heads;
    let (q_size, kv_size) = (heads.q_size(), heads.kv_size());
    let part = |start, count| Part { qkv, start, count, head_dim };
    let queries = part(0, num_heads).normed_and_rotated(norms.q, rope)?;
    if matches!(cache.spec().layers[layer], LayerCache::Shared(_)) {
        return Ok(queries);
    }
    let keys = part(q_size, num_kv_heads).normed_and_rotated(norms.k, rope)?;
    let values = part(q_size + kv_size, num_kv_heads).normed_and_rotated(norms.v, None)?;
    cache.store(layer, &keys, &values, slots)?;
    Tensor::cat(&[&queries, &keys, &values.contiguous()?], 1)
}

/// Some heads of each row.
struct Part<'a> {
    qkv: &'a Tensor,
    start: usize,
    count: usize,
    head_dim: usize,
}

impl Part<'_> {
    /// The heads as the cache or attention takes them, `[rows, count * head_dim]`.
    fn normed_and_rotated(&self, norm: Option<HeadNorm<'_, Matrix>>, rope: Option<&Tensor>) -> Result<Tensor> {
        let (rows, width) = (self.qkv.dim(0)?, self.count * self.head_dim);
        let x = self.qkv.narrow(1, self.start, width)?;
        if norm.is_none() && rope.is_none() {
            return Ok(x);
        }
        let mut x = x.reshape((rows, self.count, self.head_dim))?;
        if let Some(HeadNorm { weight, eps }) = norm {
            x = rms_norm(&x, weight.map(Matrix::data), eps)?;
        }
        if let Some(rope) = rope {
            x = rotate(&x, rope)?;
        }
        x.reshape((rows, width))
    }
}
