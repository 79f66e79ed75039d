//! The layer of the Gemma family since its second generation.

use nanovllm_backend::{Activation, Backend};

use crate::config::BaseConfig;
use crate::decoder::buffers::{Buffers, LayerSizes, MlpSizes};
use crate::decoder::contract::DecoderLayer;
use crate::decoder::expert_branch::ExpertBranch;
use crate::decoder::mlp::{FeedForward, GatedMlp};
use crate::decoder::self_attention::{SelfAttention, layer_sizes};
use crate::error::Result;
use crate::layers::layernorm::RmsNorm;
use crate::layers::rotary_embedding::RotaryEmbedding;
use crate::slices::Slice;
use crate::weights::Weights;

/// Self-attention and a gated MLP, each normed before, and once more after, ere it is added to the residual stream.
pub(crate) struct SandwichLayer<B: Backend> {
    self_attn: SelfAttention<B>,
    mlp: GatedMlp<B>,
    input_layernorm: RmsNorm<B>,
    /// Norms what attention gave.
    post_attention_layernorm: RmsNorm<B>,
    /// Norms the input of the MLP.
    pre_feedforward_layernorm: RmsNorm<B>,
    /// Norms what the MLP gave.
    post_feedforward_layernorm: RmsNorm<B>,
    /// What is added to what the MLP gave before that norm, in models that have experts beside it.
    pub(crate) experts: Option<ExpertBranch<B>>,
}

impl<B: Backend> SandwichLayer<B> {
    /// Loads what is not of attention.
    pub(crate) fn load(
        weights: &mut Weights<'_, B>,
        prefix: &str,
        base: &BaseConfig,
        self_attn: SelfAttention<B>,
        activation: Activation,
    ) -> Result<Self> {
        let (hidden, eps) = (base.hidden_size, base.rms_norm_eps);
        let mut norm = |name: &str| RmsNorm::load(weights, &format!("{prefix}.{name}"), hidden, eps);
        let (input, post_attention) = (norm("input_layernorm")?, norm("post_attention_layernorm")?);
        let (pre, post) = (norm("pre_feedforward_layernorm")?, norm("post_feedforward_layernorm")?);
        Ok(Self {
            self_attn,
            mlp: GatedMlp { activation, ..GatedMlp::load(weights, &format!("{prefix}.mlp"), base)? },
            input_layernorm: input,
            post_attention_layernorm: post_attention,
            pre_feedforward_layernorm: pre,
            post_feedforward_layernorm: post,
            experts: None,
        })
    }
}

impl<B: Backend> DecoderLayer<B> for SandwichLayer<B> {
    fn sizes(&self) -> LayerSizes {
        let experts = self.experts.as_ref().map(ExpertBranch::sizes);
        layer_sizes(&self.self_attn, MlpSizes { experts, ..self.mlp.sizes() })
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
        self.post_attention_layernorm.forward(backend, hidden, normed);
        self.pre_feedforward_layernorm.add_forward(backend, normed, residual, hidden);
        self.mlp.forward(backend, hidden, mlp, normed);
        if let Some(experts) = &self.experts {
            experts.add_to(backend, residual, mlp, hidden, normed);
        }
        self.post_feedforward_layernorm.forward(backend, normed, hidden);
    }
}
