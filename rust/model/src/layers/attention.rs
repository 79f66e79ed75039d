//! Attention over the paged cache.

use nanovllm_backend::{Backend, Context, HeadLayout};

use super::layernorm::RmsNorm;
use super::rotary_embedding::RotaryEmbedding;

/// One layer's attention: norms and rotates queries and keys, stores keys and values, attends.
pub struct Attention {
    /// The heads.
    pub heads: HeadLayout,
    /// The layer of the cache it uses.
    pub layer: usize,
}

impl Attention {
    /// `qkv` is `[rows, q + k + v]`, `out` `[rows, q]`.
    pub fn forward<B: Backend>(
        &self,
        backend: &B,
        qkv: &mut B::Tensor,
        qk_norm: Option<(&RmsNorm<B>, &RmsNorm<B>)>,
        rotary: &RotaryEmbedding<B>,
        positions: &[u32],
        cache: &mut B::KvCache,
        context: &Context<'_>,
        out: &mut B::Tensor,
    ) {
        let qk_norm = qk_norm.map(|(q, k)| {
            let ((q, eps), (k, _)) = (q.parts(), k.parts());
            (q, k, eps)
        });
        let table = &rotary.cos_sin_cache;
        backend.norm_rope_store(qkv, &self.heads, qk_norm, table, positions, cache, self.layer, context);
        backend.attention(qkv, &self.heads, cache, self.layer, context, out);
    }
}
