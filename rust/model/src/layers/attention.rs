//! Attention over the paged cache.

use nanovllm_backend::{AttentionOptions, Backend, Context, HeadLayout, HeadNorms, default_scale};

use crate::layers::rotary_embedding::RotaryEmbedding;

/// What the attention of one layer is made of, and where its keys and values are.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// The heads of a row of `qkv`.
    pub heads: HeadLayout,
    /// The layer of the KV cache that it stores to and reads.
    pub layer: usize,
    /// Which of the decoder's rotary tables rotates queries and keys; `None` leaves them as they are.
    pub rope: Option<usize>,
    /// What products of queries and keys are multiplied by.
    pub scale: f64,
    /// The number of positions a row sees at most, its own included; `None` for all before it.
    pub window: Option<usize>,
    /// The bound of scores; see [`AttentionOptions::soft_cap`].
    pub soft_cap: Option<f32>,
}

impl Attention {
    /// Attention to every position up to a row's own with the usual scale, rotated by the decoder's first table.
    pub fn plain(heads: HeadLayout, layer: usize) -> Self {
        let scale = default_scale(heads.head_dim);
        Self { heads, layer, rope: Some(0), scale, window: None, soft_cap: None }
    }

    /// Norms and rotates the heads of `qkv`, `[rows, q + k + v]`, stores its keys and values, and attends: `out` is
    /// `[rows, q]`. `positions` has the position of each row.
    pub fn forward<B: Backend>(
        &self,
        backend: &B,
        qkv: &mut B::Tensor,
        norms: &HeadNorms<'_, B::Tensor>,
        ropes: &[RotaryEmbedding<B>],
        positions: &[u32],
        cache: &mut B::KvCache,
        context: &Context<'_>,
        out: &mut B::Tensor,
    ) {
        let rope = self.rope.map(|kind| ropes[kind].at(positions));
        backend.norm_rope_store(qkv, &self.heads, norms, rope, cache, self.layer, context);
        self.attend(backend, qkv, cache, context, out);
    }

    /// The second half of [`forward`](Self::forward): attends from the queries of `qkv` to what the cache holds.
    pub fn attend<B: Backend>(
        &self,
        backend: &B,
        qkv: &B::Tensor,
        cache: &B::KvCache,
        context: &Context<'_>,
        out: &mut B::Tensor,
    ) {
        let Self { scale, window, soft_cap, .. } = *self;
        let options = AttentionOptions { scale, window, soft_cap, sinks: None };
        backend.attention(qkv, &self.heads, &options, cache, self.layer, context, out);
    }
}
