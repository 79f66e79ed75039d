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
        self.store(backend, qkv, qk_norm, rotary, positions, cache, context);
        self.attend(backend, qkv, cache, context, out);
    }

    /// The first half of [`forward`](Self::forward): norms, rotates, and stores keys and values at the context's slots.
    pub fn store<B: Backend>(
        &self,
        backend: &B,
        qkv: &mut B::Tensor,
        qk_norm: Option<(&RmsNorm<B>, &RmsNorm<B>)>,
        rotary: &RotaryEmbedding<B>,
        positions: &[u32],
        cache: &mut B::KvCache,
        context: &Context<'_>,
    ) {
        let qk_norm = qk_norm.map(|(q, k)| {
            let ((q, eps), (k, _)) = (q.parts(), k.parts());
            (q, k, eps)
        });
        let table = &rotary.cos_sin_cache;
        backend.norm_rope_store(qkv, &self.heads, qk_norm, table, positions, cache, self.layer, context);
    }

    /// The second half: attends from the queries of `qkv` to what the cache holds.
    pub fn attend<B: Backend>(
        &self,
        backend: &B,
        qkv: &B::Tensor,
        cache: &B::KvCache,
        context: &Context<'_>,
        out: &mut B::Tensor,
    ) {
        backend.attention(qkv, &self.heads, cache, self.layer, context, out);
    }
}
