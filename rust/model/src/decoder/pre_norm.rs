//! The layer most decoders are stacks of.

use nanovllm_backend::Backend;

use crate::config::BaseConfig;
use crate::decoder::buffers::{Buffers, LayerSizes};
use crate::decoder::contract::DecoderLayer;
use crate::decoder::mlp::{FeedForward, GatedMlp};
use crate::decoder::multiply::multiply;
use crate::decoder::self_attention::{SelfAttention, layer_sizes};
use crate::error::Result;
use crate::layers::attention::Attention;
use crate::layers::layernorm::RmsNorm;
use crate::layers::rotary_embedding::RotaryEmbedding;
use crate::slices::Slice;
use crate::weights::Weights;

/// Self-attention and a gated MLP, each normed before and added to the residual stream after (Xiong et al. 2020).
pub struct PreNormLayer<B: Backend, M = GatedMlp<B>> {
    /// Self-attention, which runs first.
    pub self_attn: SelfAttention<B>,
    /// The MLP, which runs on what attention gave.
    pub mlp: M,
    /// Norms the input of attention.
    pub input_layernorm: RmsNorm<B>,
    /// Norms the input of the MLP.
    pub post_attention_layernorm: RmsNorm<B>,
    /// What both parts' outputs are multiplied by before they are added; 1 in most families.
    pub residual_multiplier: f32,
}

impl<B: Backend> PreNormLayer<B> {
    pub(crate) fn load(
        weights: &mut Weights<'_, B>,
        prefix: &str,
        base: &BaseConfig,
        attn: Attention,
        qk_norm: bool,
    ) -> Result<Self> {
        let mlp = |weights: &mut Weights<'_, B>, prefix: &str| GatedMlp::load(weights, prefix, base);
        Self::load_with(weights, prefix, base, attn, qk_norm, mlp)
    }
}

impl<B: Backend, M> PreNormLayer<B, M> {
    /// The same with a feed-forward part that `mlp` loads, whose prefix it is given.
    pub(crate) fn load_with(
        weights: &mut Weights<'_, B>,
        prefix: &str,
        base: &BaseConfig,
        attn: Attention,
        qk_norm: bool,
        mlp: impl FnOnce(&mut Weights<'_, B>, &str) -> Result<M>,
    ) -> Result<Self> {
        let (hidden, eps) = (base.hidden_size, base.rms_norm_eps);
        let mut norm = |name: &str| RmsNorm::load(weights, &format!("{prefix}.{name}"), hidden, eps);
        let (input, post) = (norm("input_layernorm")?, norm("post_attention_layernorm")?);
        Ok(Self {
            self_attn: SelfAttention::load(weights, &format!("{prefix}.self_attn"), base, attn, qk_norm)?,
            mlp: mlp(weights, &format!("{prefix}.mlp"))?,
            input_layernorm: input,
            post_attention_layernorm: post,
            residual_multiplier: 1.0,
        })
    }
}

impl<B: Backend, M: FeedForward<B>> DecoderLayer<B> for PreNormLayer<B, M> {
    fn sizes(&self) -> LayerSizes {
        layer_sizes(&self.self_attn, self.mlp.sizes())
    }

    fn forward(
        &self,
        backend: &B,
        is_first: bool,
        ropes: &[RotaryEmbedding<B>],
        slice: &Slice<'_>,
        cache: &mut B::KvCache,
        buffers: &mut Buffers<B>,
    ) {
        let Buffers { normed, hidden, residual, layers, .. } = buffers;
        let (attention, mlp) = layers.of(self.sizes());
        if is_first {
            self.input_layernorm.forward(backend, residual, normed);
        } else {
            self.input_layernorm.add_forward(backend, hidden, residual, normed);
        }
        self.self_attn.forward(backend, normed, ropes, slice, cache, attention, hidden);
        multiply(backend, hidden, self.residual_multiplier);
        self.post_attention_layernorm.add_forward(backend, hidden, residual, normed);
        self.mlp.forward(backend, normed, mlp, hidden);
        multiply(backend, hidden, self.residual_multiplier);
    }
}
