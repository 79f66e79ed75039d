//! Gemma 4, of text: a Gemma 3 whose layers with a window have heads of their own, whose last layers
//! read an earlier one's keys and values, and whose layers may be given embeddings beside the stream, or have experts beside
//! their MLP.

mod gguf;
mod json;
mod layer;

use nanovllm_backend::{Activation, Backend, HeadLayout, KvHeads};
use nanovllm_gguf::Value as GgufValue;
use serde_json::Value;

use self::layer::Gemma4Layer;
use crate::checkpoint::{FusedModule, StackedExperts};
use crate::config::experts::ExpertsConfig;
use crate::config::gguf::Keys;
use crate::config::json::Object;
use crate::config::settings::Settings;
use crate::config::{BaseConfig, RopeConfig, Windows};
use crate::decoder::{Decoder, PerLayerInputs, Stack};
use crate::error::{LoadError, Result};
use crate::layers::attention::Attention;
use crate::models::family_config::FamilyConfig;
use crate::models::tensor_table::{TensorRule, TensorTable};
use crate::weights::Weights;

/// What a Gemma 4 has beyond every decoder. The heads in [`BaseConfig`] are those of layers that see everything.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The windows of most layers; the last has none.
    windows: Windows,
    /// The key and value heads of layers with a window.
    local_heads: KvHeads,
    /// The rotary embedding of layers with a window.
    local_rope: RopeConfig,
    /// Whether the values of layers that see everything are their keys, before these are normed and rotated.
    values_are_keys: bool,
    /// How many layers, the last ones, have no keys and values of their own.
    shared_layers: usize,
    /// Whether these have an MLP twice as wide.
    double_wide: bool,
    /// The width of what each layer is given beside the stream; zero where it is given nothing.
    per_layer_width: usize,
    /// The experts of each layer, beside its MLP, if there are any.
    experts: Option<ExpertsConfig>,
    /// The bound of logits, if they have one.
    logits_cap: Option<f32>,
}

const TENSORS: &[TensorRule] = &[
    TensorRule::top("per_layer_token_embd", "model.embed_tokens_per_layer"),
    TensorRule::top("per_layer_model_proj", "model.per_layer_model_projection"),
    TensorRule::top("per_layer_proj_norm", "model.per_layer_projection_norm"),
    TensorRule::layer("post_attention_norm", "post_attention_layernorm"),
    TensorRule::layer("ffn_norm", "pre_feedforward_layernorm"),
    TensorRule::layer("post_ffw_norm", "post_feedforward_layernorm"),
    TensorRule::layer("ffn_gate_inp", "router.proj"),
    TensorRule::layer("ffn_gate_inp", "router.scale").bare_scale(),
    TensorRule::layer("ffn_down_exps", "router.per_expert_scale").bare_scale(),
    TensorRule::layer("pre_ffw_norm_2", "pre_feedforward_layernorm_2"),
    TensorRule::layer("post_ffw_norm_1", "post_feedforward_layernorm_1"),
    TensorRule::layer("post_ffw_norm_2", "post_feedforward_layernorm_2"),
    TensorRule::layer("inp_gate", "per_layer_input_gate"),
    TensorRule::layer("proj", "per_layer_projection"),
    TensorRule::layer("post_norm", "post_per_layer_input_norm"),
    TensorRule::layer("layer_output_scale", "layer_scalar").bare(),
];

/// The experts of a layer, whose gates and values stay one tensor.
const STACKED: &[FusedModule] = &[
    FusedModule { stored: "experts.gate_up_proj", parts: &["gate_up_proj"] },
    FusedModule { stored: "experts.down_proj", parts: &["down_proj"] },
];

impl Config {
    /// Refuses what contradicts itself.
    fn checked(self, base: &BaseConfig) -> Result<Self> {
        let layers = base.num_hidden_layers;
        let heads = self.local_heads;
        if heads.num_kv_heads == 0 || !base.num_attention_heads.is_multiple_of(heads.num_kv_heads) {
            return Err(LoadError::Config(format!(
                "num_attention_heads ({}) must be a multiple of num_key_value_heads ({})",
                base.num_attention_heads, heads.num_kv_heads
            )));
        }
        if heads.head_dim == 0 || heads.head_dim > base.head_dim || !heads.head_dim.is_multiple_of(2) {
            return Err(LoadError::Config(format!(
                "head_dim must be even and at most that of layers without a window ({}), got {}",
                base.head_dim, heads.head_dim
            )));
        }
        if self.per_layer_width > 1 << 20 {
            return Err(LoadError::Config(format!(
                "hidden_size_per_layer_input must be at most {}, got {}",
                1 << 20,
                self.per_layer_width
            )));
        }
        if self.shared_layers >= layers {
            let got = self.shared_layers;
            return Err(LoadError::Config(format!("num_kv_shared_layers must be below {layers}, got {got}")));
        }
        if let Some(layer) = (layers - self.shared_layers..layers).find(|&layer| self.owner(layer, layers).is_none()) {
            return Err(LoadError::Config(format!(
                "layer {layer} shares the keys and values of an earlier one of its kind, but there is none"
            )));
        }
        Ok(self)
    }

    /// Whether a layer reads the keys and values of an earlier one.
    fn is_shared(&self, layer: usize, layers: usize) -> bool {
        layer >= layers - self.shared_layers
    }

    /// The layer whose keys and values a sharing one reads: the last of its kind that has its own.
    fn owner(&self, layer: usize, layers: usize) -> Option<usize> {
        let slides = |layer: usize| self.windows.of(layer).is_some();
        (0..layers - self.shared_layers).rev().find(|&owner| slides(owner) == slides(layer))
    }

    /// The key and value heads of a layer.
    fn kv_heads(&self, base: &BaseConfig, layer: usize) -> KvHeads {
        if self.windows.of(layer).is_some() { self.local_heads } else { base.kv_heads() }
    }

    /// The width of a layer's MLP.
    fn intermediate_size(&self, base: &BaseConfig, layer: usize) -> usize {
        let twice = self.double_wide && self.is_shared(layer, base.num_hidden_layers);
        base.intermediate_size * if twice { 2 } else { 1 }
    }
}

impl FamilyConfig for Config {
    fn from_json(json: Object<'_>, base: &mut BaseConfig) -> Result<Self> {
        json::read(json, base)?.checked(base)
    }

    fn also_called() -> &'static [&'static str] {
        &[json::UNIFIED, "Gemma4UnifiedForCausalLM"]
    }

    fn json_defaults(json: Object<'_>) -> Vec<(&'static str, Value)> {
        json::defaults(json)
    }

    fn from_gguf(keys: &Keys<'_>, base: &mut BaseConfig) -> Result<Self> {
        gguf::read(keys, base)?.checked(base)
    }

    fn json_settings() -> Settings {
        json::SETTINGS
    }

    fn gguf_settings() -> Settings {
        gguf::SETTINGS
    }

    fn to_json(&self) -> Vec<(&'static str, Value)> {
        json::write(self)
    }

    fn to_gguf(&self, base: &BaseConfig, name: &str) -> Result<Vec<(String, GgufValue)>> {
        gguf::write(self, base, name)
    }

    fn tensor_table(&self) -> TensorTable {
        TensorTable(&[TENSORS, TensorTable::FUSED_EXPERTS, TensorTable::EXPERTS, TensorTable::PRE_NORM])
    }

    fn experts(&self) -> Option<&ExpertsConfig> {
        self.experts.as_ref()
    }

    fn stacked_experts(&self) -> Option<StackedExperts> {
        self.experts.as_ref().map(|experts| StackedExperts {
            count: experts.num_experts,
            modules: STACKED,
            in_turns: false,
        })
    }

    fn ropes<'a>(&'a self, base: &'a BaseConfig) -> Vec<&'a RopeConfig> {
        vec![&base.rope, &self.local_rope]
    }

    fn attention(&self, base: &BaseConfig, layer: usize) -> Attention {
        let KvHeads { num_kv_heads, head_dim } = self.kv_heads(base, layer);
        let heads = HeadLayout { num_heads: base.num_attention_heads, num_kv_heads, head_dim };
        let window = self.windows.of(layer);
        let layers = base.num_hidden_layers;
        Attention {
            shared_with: self.owner(layer, layers).filter(|_| self.is_shared(layer, layers)),
            rope: Some(usize::from(window.is_some())),
            scale: 1.0,
            window,
            ..Attention::plain(heads, layer)
        }
    }

    fn decoder<B: Backend>(
        &self,
        base: &BaseConfig,
        weights: &mut Weights<'_, B>,
        positions: usize,
    ) -> Result<Box<dyn Decoder<B>>> {
        let backend = weights.backend;
        let per_layer = match self.per_layer_width {
            0 => None,
            width => Some(PerLayerInputs::load(weights, base, width)?),
        };
        let decoder = Stack::load(base, weights, &self.ropes(base), positions, |weights, i, prefix| {
            Gemma4Layer::load(self, weights, i, prefix, base)
        })?;
        let embedding = (base.hidden_size as f64).sqrt() as f32;
        let decoder = decoder.multiplied(embedding, 1.0).capped(self.logits_cap);
        Ok(Box::new(decoder.with_per_layer(backend, per_layer)?))
    }
}

/// What gates of MLPs and of inputs go through.
const ACTIVATION: Activation = Activation::GeluTanh;
