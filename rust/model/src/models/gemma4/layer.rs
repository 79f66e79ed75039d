//! One layer of a Gemma 4.

use nanovllm_backend::{Backend, Scale};

use super::{ACTIVATION, Config};
use crate::config::BaseConfig;
use crate::decoder::{
    AttentionNorms, Buffers, DecoderLayer, ExpertBranch, LayerSizes, PerLayerGate, SandwichLayer, SelfAttention,
};
use crate::error::Result;
use crate::layers::attention::Attention;
use crate::layers::layernorm::RmsNorm;
use crate::layers::linear::{Linear, LinearSharding};
use crate::layers::rotary_embedding::RotaryEmbedding;
use crate::models::family_config::FamilyConfig as _;
use crate::sharding::TpRank;
use crate::slices::Slice;
use crate::weights::Weights;

/// A sandwich layer, what it does with the input it is given beside the stream, and a multiplier of the stream after it.
pub(super) struct Gemma4Layer<B: Backend> {
    sandwich: SandwichLayer<B>,
    per_layer: Option<PerLayerGate<B>>,
    scalar: f32,
}

impl<B: Backend> Gemma4Layer<B> {
    pub(super) fn load(
        config: &Config,
        weights: &mut Weights<'_, B>,
        layer: usize,
        prefix: &str,
        base: &BaseConfig,
    ) -> Result<Self> {
        let attention = config.attention(base, layer);
        let values_are_keys = config.values_are_keys && attention.window.is_none();
        let self_attn = attention_of(weights, &format!("{prefix}.self_attn"), base, attention, values_are_keys)?;
        let intermediate_size = config.intermediate_size(base, layer);
        let base = &BaseConfig { intermediate_size, ..base.clone() };
        let width = config.per_layer_width;
        let mut sandwich = SandwichLayer::load(weights, prefix, base, self_attn, ACTIVATION)?;
        if let Some(experts) = &config.experts {
            sandwich.experts = Some(ExpertBranch::load(weights, prefix, base, experts, ACTIVATION)?);
        }
        Ok(Self {
            sandwich,
            per_layer: match width {
                0 => None,
                width => Some(PerLayerGate::load(weights, prefix, base, layer, width, ACTIVATION)?),
            },
            scalar: weights.scalar(&format!("{prefix}.layer_scalar"))?,
        })
    }
}

/// Loads attention; what a layer that shares an earlier one's cache has of its own is skipped.
fn attention_of<B: Backend>(
    weights: &mut Weights<'_, B>,
    prefix: &str,
    base: &BaseConfig,
    attn: Attention,
    values_are_keys: bool,
) -> Result<SelfAttention<B>> {
    let (heads, hidden, tp) = (attn.heads, base.hidden_size, TpRank::SINGLE);
    let module = |name: &str| format!("{prefix}.{name}");
    let mut norm = |name: &str| RmsNorm::load(weights, &module(name), heads.head_dim, base.rms_norm_eps).map(Some);
    let norms = match attn.shared_with {
        Some(_) => AttentionNorms { q: norm("q_norm")?, ..AttentionNorms::NONE },
        None => AttentionNorms { q: norm("q_norm")?, k: norm("k_norm")?, v_eps: Some(base.rms_norm_eps) },
    };
    let qkv_proj = if attn.shared_with.is_some() {
        for unused in ["k_proj", "v_proj", "k_norm", "v_norm"] {
            weights.skip(&module(unused));
        }
        let q = LinearSharding::column_parallel(hidden, &[heads.q_size()], base.qkv_bias, tp)?;
        Linear::load(weights, &module("q_proj"), q)?
    } else {
        let values = if values_are_keys { "k_proj" } else { "v_proj" };
        let modules = ["q_proj", "k_proj", values].map(module);
        Linear::load_modules(weights, &modules, LinearSharding::qkv_parallel(hidden, &heads, base.qkv_bias, tp)?)?
    };
    let o = LinearSharding::row_parallel(heads.q_size(), hidden, base.o_bias, tp)?;
    Ok(SelfAttention { qkv_proj, o_proj: Linear::load(weights, &module("o_proj"), o)?, norms, sinks: None, attn })
}

impl<B: Backend> DecoderLayer<B> for Gemma4Layer<B> {
    fn sizes(&self) -> LayerSizes {
        self.sandwich.sizes()
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
        self.sandwich.forward(backend, is_first, ropes, slice, cache, buffers);
        let Buffers { normed, hidden, residual, per_layer, .. } = buffers;
        if let (Some(gate), Some(inputs)) = (&self.per_layer, per_layer) {
            backend.add(hidden, residual);
            gate.forward(backend, residual, inputs, normed, hidden);
        }
        // Of the stream, whose last addend the next layer adds.
        backend.scale(hidden, Scale::All(self.scalar));
        backend.scale(residual, Scale::All(self.scalar));
    }
}
