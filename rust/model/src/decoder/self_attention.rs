//! Self-attention of one layer.

use nanovllm_backend::{Backend, HeadNorms};

use crate::config::BaseConfig;
use crate::decoder::buffers::AttentionBuffers;
use crate::error::Result;
use crate::layers::attention::Attention;
use crate::layers::layernorm::RmsNorm;
use crate::layers::linear::{Linear, LinearSharding};
use crate::layers::rotary_embedding::RotaryEmbedding;
use crate::sharding::TpRank;
use crate::slices::Slice;
use crate::weights::Weights;

/// Self-attention: the projection to queries, keys and values, attention, and the projection back.
pub struct SelfAttention<B: Backend> {
    /// To queries, keys and values, as one projection.
    pub qkv_proj: Linear<B>,
    /// Back to the residual stream.
    pub o_proj: Linear<B>,
    /// The norms of query and of key heads, for families that have them.
    pub qk_norm: Option<(RmsNorm<B>, RmsNorm<B>)>,
    /// The layer's heads, its place in the KV cache, and how it rotates and attends.
    pub attn: Attention,
}

impl<B: Backend> SelfAttention<B> {
    pub(crate) fn load(
        weights: &mut Weights<'_, B>,
        prefix: &str,
        base: &BaseConfig,
        attn: Attention,
        qk_norm: bool,
    ) -> Result<Self> {
        let (heads, hidden, tp) = (attn.heads, base.hidden_size, TpRank::SINGLE);
        let mut norm =
            |name: &str| RmsNorm::load(weights, &format!("{prefix}.{name}"), heads.head_dim, base.rms_norm_eps);
        let qk_norm = if qk_norm { Some((norm("q_norm")?, norm("k_norm")?)) } else { None };
        let qkv = LinearSharding::qkv_parallel(hidden, &heads, base.qkv_bias, tp)?;
        let o = LinearSharding::row_parallel(heads.q_size(), hidden, base.o_bias, tp)?;
        Ok(Self {
            qkv_proj: Linear::load(weights, &format!("{prefix}.qkv_proj"), qkv)?,
            o_proj: Linear::load(weights, &format!("{prefix}.o_proj"), o)?,
            qk_norm,
            attn,
        })
    }

    /// From `x` to `out`, both `[rows, hidden]`; keys and values are stored in the cache. `ropes` are the decoder's
    /// rotary tables.
    pub fn forward(
        &self,
        backend: &B,
        x: &B::Tensor,
        ropes: &[RotaryEmbedding<B>],
        slice: &Slice<'_>,
        cache: &mut B::KvCache,
        buffers: &mut AttentionBuffers<B>,
        out: &mut B::Tensor,
    ) {
        let AttentionBuffers { qkv, attention, factors } = buffers;
        self.qkv_proj.forward(backend, x, qkv);
        let norms = match &self.qk_norm {
            Some((q, k)) => HeadNorms { q: Some(q.of_heads()), k: Some(k.of_heads()), v: None },
            None => HeadNorms::NONE,
        };
        self.attn.forward(backend, qkv, &norms, ropes, slice.positions, cache, &slice.context, factors, attention);
        self.o_proj.forward(backend, attention, out);
    }
}
