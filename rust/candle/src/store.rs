//! Norms and rotation of the heads of rows, and storing of their keys and values.

use candle_core::{Result, Tensor};
use nanovllm_backend::{HeadLayout, HeadNorm, HeadNorms, LayerCache};

use crate::kv_cache::KvCache;
use crate::matrix::Matrix;
use crate::rows::{rms_norm, rotate};

/// [`Backend::norm_rope_store`](nanovllm_backend::Backend::norm_rope_store), with the result as a tensor of its own.
/// `rope` has the row of the rotary table for each row of `qkv`, `slots` the slot.
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
    let heads_from = |start, count| Heads { qkv, start, count, head_dim };
    let queries = heads_from(0, num_heads).normed_and_rotated(norms.q, rope)?;
    if matches!(cache.spec().layers[layer], LayerCache::Shared(_)) {
        return Ok(queries);
    }
    let keys = heads_from(q_size, num_kv_heads).normed_and_rotated(norms.k, rope)?;
    let values = heads_from(q_size + kv_size, num_kv_heads).normed_and_rotated(norms.v, None)?;
    cache.store(layer, &keys, &values, slots)?;
    Tensor::cat(&[&queries, &keys, &values.contiguous()?], 1)
}

/// The queries, keys or values of every row: `count` heads from column `start` on.
struct Heads<'a> {
    qkv: &'a Tensor,
    start: usize,
    count: usize,
    head_dim: usize,
}

impl Heads<'_> {
    /// The heads, `[rows, count * head_dim]`, after the norm and the rotation that are given.
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
