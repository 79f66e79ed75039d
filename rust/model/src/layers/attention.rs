//! Attention over the paged cache.

use nanovllm_backend::{AttentionOptions, Backend, Context, HeadLayout, HeadNorms, Scale, default_scale};

use crate::layers::rotary_embedding::RotaryEmbedding;

/// What the attention of one layer is made of, and where its keys and values are.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// The heads of a row of `qkv`.
    pub heads: HeadLayout,
    /// The layer of the KV cache that it stores to and reads.
    pub layer: usize,
    /// The earlier layer whose keys and values it reads, where it stores none of its own; rows of `qkv` are then queries
    /// alone.
    pub shared_with: Option<usize>,
    /// Which of the decoder's rotary tables rotates queries and keys; `None` leaves them as they are.
    pub rope: Option<usize>,
    /// What products of queries and keys are multiplied by.
    pub scale: f64,
    /// The number of positions a row sees at most, its own included; `None` for all before it.
    pub window: Option<usize>,
    /// The bound of scores; see [`AttentionOptions::soft_cap`].
    pub soft_cap: Option<f32>,
    /// How queries grow with their position, if they do.
    pub temperature: Option<Temperature>,
}

/// Queries that grow with their position, once that is beyond the context the model was first trained on (Llama 4): at
/// position `p` they are multiplied by `1 + beta * ln(1 + floor(p / original))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    /// How fast they grow.
    pub beta: f64,
    /// That context in tokens; at least 1.
    pub original: usize,
}

impl Temperature {
    /// Multiplies the queries of `qkv`, and whatever else is in its rows. `factors` is room for a number a row.
    fn apply<B: Backend>(&self, backend: &B, qkv: &mut B::Tensor, positions: &[u32], factors: &mut Vec<f32>) {
        if positions.iter().all(|&p| (p as usize) < self.original) {
            return; // every factor is 1
        }
        let factor = |&p: &u32| (1.0 + self.beta * ((1 + p as usize / self.original) as f64).ln()) as f32;
        factors.clear();
        factors.extend(positions.iter().map(factor));
        backend.scale(qkv, Scale::Rows(factors));
    }
}

impl Attention {
    /// Attention to every position up to a row's own with the usual scale, rotated by the decoder's first table.
    pub fn plain(heads: HeadLayout, layer: usize) -> Self {
        let scale = default_scale(heads.head_dim);
        let (shared_with, rope) = (None, Some(0));
        Self { heads, layer, shared_with, rope, scale, window: None, soft_cap: None, temperature: None }
    }

    /// Width of a row of `qkv`.
    pub fn qkv_size(&self) -> usize {
        if self.shared_with.is_some() { self.heads.q_size() } else { self.heads.qkv_size() }
    }

    /// Norms and rotates the heads of `qkv`, `[rows, qkv_size]`, stores its keys and values, and attends: `out` is
    /// `[rows, q]`. `sinks` has a score for each head, if there are any, `positions` the position of each row, and `factors` is
    /// room for a number a row.
    pub fn forward<B: Backend>(
        &self,
        backend: &B,
        qkv: &mut B::Tensor,
        norms: &HeadNorms<'_, B::Tensor>,
        sinks: Option<&B::Tensor>,
        ropes: &[RotaryEmbedding<B>],
        positions: &[u32],
        cache: &mut B::KvCache,
        context: &Context<'_>,
        factors: &mut Vec<f32>,
        out: &mut B::Tensor,
    ) {
        let rope = self.rope.map(|kind| ropes[kind].at(positions));
        backend.norm_rope_store(qkv, &self.heads, norms, rope, cache, self.layer, context);
        if let Some(temperature) = &self.temperature {
            temperature.apply(backend, qkv, positions, factors);
        }
        self.attend(backend, qkv, sinks, cache, context, out);
    }

    /// The second half of [`forward`](Self::forward): attends from the queries of `qkv` to what the cache holds.
    pub fn attend<B: Backend>(
        &self,
        backend: &B,
        qkv: &B::Tensor,
        sinks: Option<&B::Tensor>,
        cache: &B::KvCache,
        context: &Context<'_>,
        out: &mut B::Tensor,
    ) {
        let Self { scale, window, soft_cap, .. } = *self;
        let options = AttentionOptions { scale, window, soft_cap, sinks };
        backend.attention(qkv, &self.heads, &options, cache, self.layer, context, out);
    }
}
