//! Self-attention of one layer.

use std::sync::Arc;

use nanovllm_backend::{Backend, HeadNorm, HeadNorms};

use crate::config::BaseConfig;
use crate::decoder::buffers::{AttentionBuffers, LayerSizes, MlpSizes};
use crate::error::Result;
use crate::layers::attention::Attention;
use crate::layers::layernorm::RmsNorm;
use crate::layers::linear::{Linear, LinearSharding};
use crate::layers::rotary_embedding::RotaryEmbedding;
use crate::sharding::{Sharding, TpRank};
use crate::slices::Slice;
use crate::weights::Weights;

/// Self-attention: the projection to queries, keys and values, attention, and the projection back.
pub struct SelfAttention<B: Backend> {
    /// To queries, keys and values, as one projection.
    pub qkv_proj: Linear<B>,
    /// Back to the residual stream.
    pub o_proj: Linear<B>,
    /// What heads are normed by.
    pub norms: AttentionNorms<B>,
    /// A score for each head that a row's scores compete with, `[1, heads]`, in families that have it.
    pub sinks: Option<Arc<B::Tensor>>,
    /// The layer's heads, its place in the KV cache, and how it rotates and attends.
    pub attn: Attention,
}

/// The norms of the heads, for families that have them.
pub struct AttentionNorms<B: Backend> {
    /// That of query heads.
    pub q: Option<RmsNorm<B>>,
    /// That of key heads.
    pub k: Option<RmsNorm<B>>,
    /// The epsilon of that of value heads, which has no weight.
    pub v_eps: Option<f32>,
}

impl<B: Backend> AttentionNorms<B> {
    /// Heads are not normed.
    pub const NONE: Self = Self { q: None, k: None, v_eps: None };
}

/// The widths of a layer of these parts.
pub(crate) fn layer_sizes<B: Backend>(attention: &SelfAttention<B>, mlp: MlpSizes) -> LayerSizes {
    let attn = &attention.attn;
    LayerSizes { qkv: attn.qkv_size(), q: attn.heads.q_size(), mlp }
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
        let norms = if qk_norm {
            AttentionNorms { q: Some(norm("q_norm")?), k: Some(norm("k_norm")?), v_eps: None }
        } else {
            AttentionNorms::NONE
        };
        let qkv = LinearSharding::qkv_parallel(hidden, &heads, base.qkv_bias, tp)?;
        let o = LinearSharding::row_parallel(heads.q_size(), hidden, base.o_bias, tp)?;
        Ok(Self {
            qkv_proj: Linear::load(weights, &format!("{prefix}.qkv_proj"), qkv)?,
            o_proj: Linear::load(weights, &format!("{prefix}.o_proj"), o)?,
            norms,
            sinks: None,
            attn,
        })
    }

    /// Loads the sinks of the module whose tensors' names begin with `prefix`.
    pub(crate) fn load_sinks(&mut self, weights: &mut Weights<'_, B>, prefix: &str) -> Result<()> {
        let of_heads = Sharding::replicated(self.attn.heads.num_heads, None)?;
        self.sinks = Some(weights.vector(&[format!("{prefix}.sinks")], of_heads)?);
        Ok(())
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
        let AttentionBuffers { qkv, attention, factors, .. } = buffers;
        self.qkv_proj.forward(backend, x, qkv);
        let norms = HeadNorms {
            q: self.norms.q.as_ref().map(RmsNorm::of_heads),
            k: self.norms.k.as_ref().map(RmsNorm::of_heads),
            v: self.norms.v_eps.map(|eps| HeadNorm { weight: None, eps }),
        };
        self.attn.forward(
            backend,
            qkv,
            &norms,
            self.sinks.as_deref(),
            ropes,
            slice.positions,
            cache,
            &slice.context,
            factors,
            attention,
        );
        self.o_proj.forward(backend, attention, out);
    }
}
