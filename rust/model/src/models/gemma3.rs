//! Gemma 3, of text: norms before and after each part, and layers with a window between those that see everything, each
//! kind with its own rotary embedding.

use nanovllm_backend::{Activation, Backend, default_scale};
use nanovllm_gguf::Value as GgufValue;
use serde_json::Value;

use crate::config::gguf::{self, Keys};
use crate::config::json::{self, Object};
use crate::config::settings::{Group, Literal, Settings, Treatment};
use crate::config::{BaseConfig, RopeConfig, RopeScaling, Windows};
use crate::decoder::{Decoder, SandwichLayer, SelfAttention, Stack};
use crate::error::{LoadError, Result};
use crate::layers::attention::Attention;
use crate::models::family_config::FamilyConfig;
use crate::models::tensor_table::{TensorRule, TensorTable};
use crate::weights::Weights;

/// One layer of so many sees everything, where nothing else is said.
const PATTERN: usize = 6;
/// The base of the rotary embedding of layers with a window, where nothing else is said.
const LOCAL_THETA: f64 = 10_000.0;
/// The layers of the 27B model, whose scores are scaled by the width of the model and not of its heads. GGUF has no key
/// for the scale, so that llama.cpp tells that model by its layers.
const LAYERS_OF_27B: usize = 62;

/// What a Gemma 3 has beyond every decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The windows of most layers.
    windows: Windows,
    /// The rotary embedding of layers with a window.
    local_rope: RopeConfig,
    /// What products of queries and keys are multiplied by.
    attention_scale: f64,
    /// The bound of logits, if they have one.
    logits_cap: Option<f32>,
}

const JSON: &[Group] = &[
    (
        Treatment::Read,
        &[
            "hidden_activation",
            "query_pre_attn_scalar",
            "sliding_window",
            "sliding_window_pattern",
            "_sliding_window_pattern",
            "layer_types",
            "rope_local_base_freq",
            "rope_parameters.full_attention",
            "rope_parameters.sliding_attention",
            "final_logit_softcapping",
        ],
    ),
    // Left over from Gemma 2.
    (Treatment::Only(&[]), &["attn_logit_softcapping"]),
    // Encoders of sentences see both ways.
    (Treatment::Only(&[Literal::Bool(false)]), &["use_bidirectional_attention"]),
    // Of transformers' cache, and the activation under a name that nothing reads.
    (Treatment::Harmless, &["cache_implementation", "hidden_act"]),
];

const GGUF: &[Group] = &[
    (
        Treatment::Read,
        &[
            "attention.sliding_window",
            "attention.sliding_window_pattern",
            "rope.freq_base_swa",
            "rope.dimension_count_swa",
            "attention.key_length_swa",
            "attention.value_length_swa",
            "final_logit_softcapping",
        ],
    ),
    // ollama's names of both bases, in files that lack more than these.
    (Treatment::Only(&[]), &["rope.global.freq_base", "rope.local.freq_base"]),
];

const NORMS: &[TensorRule] = &[
    TensorRule::top("output_norm", "model.norm").less_one(),
    TensorRule::layer("attn_norm", "input_layernorm").less_one(),
    TensorRule::layer("attn_q_norm", "self_attn.q_norm").less_one(),
    TensorRule::layer("attn_k_norm", "self_attn.k_norm").less_one(),
    TensorRule::layer("post_attention_norm", "post_attention_layernorm").less_one(),
    TensorRule::layer("ffn_norm", "pre_feedforward_layernorm").less_one(),
    TensorRule::layer("post_ffw_norm", "post_feedforward_layernorm").less_one(),
];

impl FamilyConfig for Config {
    fn from_json(json: Object<'_>, base: &mut BaseConfig) -> Result<Self> {
        json::check_gelu(json)?;
        json::check_whole_heads(json)?;
        base.mlp_bias = false;
        let pattern = match json.opt_usize("sliding_window_pattern")? {
            Some(pattern) => pattern,
            None => json.opt_usize("_sliding_window_pattern")?.unwrap_or(PATTERN),
        };
        let windows =
            Windows::from_json(json, base, Some(json.usize("sliding_window")?), Windows::by_pattern(pattern))?;
        if let Some(rope) = json::rope_of_kind(json, "full_attention")? {
            base.rope = json::rope_of(json, "rope_parameters.full_attention", rope, base.rope.theta)?;
        }
        let theta = json.f64("rope_local_base_freq")?.unwrap_or(LOCAL_THETA);
        let local_rope = match json::rope_of_kind(json, "sliding_attention")? {
            Some(rope) => json::rope_of(json, "rope_parameters.sliding_attention", rope, theta)?,
            None => RopeConfig { theta, scaling: RopeScaling::None, dims: None },
        };
        let attention_scale = match json.f64("query_pre_attn_scalar")? {
            Some(scalar) if scalar.is_finite() && scalar > 0.0 => scalar.sqrt().recip(),
            Some(scalar) => {
                return Err(LoadError::Config(format!("query_pre_attn_scalar must be positive, got {scalar}")));
            }
            None => default_scale(256),
        };
        let logits_cap = json.soft_cap("final_logit_softcapping")?;
        Ok(Self { windows, local_rope, attention_scale, logits_cap })
    }

    fn json_defaults(_: Object<'_>) -> Vec<(&'static str, Value)> {
        vec![
            ("vocab_size", 262_208.into()),
            ("hidden_size", 2304.into()),
            ("intermediate_size", 9216.into()),
            ("num_hidden_layers", 26.into()),
            ("num_attention_heads", 8.into()),
            ("num_key_value_heads", 4.into()),
            ("head_dim", 256.into()),
            ("max_position_embeddings", 131_072.into()),
            ("rope_theta", 1_000_000.0.into()),
            ("sliding_window", 4096.into()),
            ("tie_word_embeddings", true.into()),
        ]
    }

    fn from_gguf(keys: &Keys<'_>, base: &mut BaseConfig) -> Result<Self> {
        gguf::check_plain(keys, base)?;
        keys.check_equal_windows(base.head_dim)?;
        let windows = Windows::from_gguf(keys, base, PATTERN)?;
        let theta = keys.f64("rope.freq_base_swa")?.unwrap_or(LOCAL_THETA);
        Ok(Self {
            windows,
            local_rope: RopeConfig { theta, scaling: RopeScaling::None, dims: None },
            attention_scale: gguf_scale(base),
            logits_cap: keys.soft_cap("final_logit_softcapping")?,
        })
    }

    fn json_settings() -> Settings {
        Settings(&[JSON, json::COMMON])
    }

    fn gguf_settings() -> Settings {
        Settings(&[GGUF, gguf::PLAIN])
    }

    fn to_json(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("hidden_activation", "gelu_pytorch_tanh".into()),
            ("hidden_act", Value::Null),
            ("query_pre_attn_scalar", self.attention_scale.powi(-2).into()),
            ("sliding_window", self.windows.size().into()),
            ("layer_types", self.windows.to_json()),
            ("rope_local_base_freq", self.local_rope.theta.into()),
            ("final_logit_softcapping", self.logits_cap.into()),
        ]
    }

    fn to_gguf(&self, base: &BaseConfig, name: &str) -> Result<Vec<(String, GgufValue)>> {
        let unsaid = |what: &str| Err(LoadError::Unsupported(format!("{what}: GGUF has no key for it in a Gemma 3")));
        if (self.attention_scale / gguf_scale(base) - 1.0).abs() > 1e-6 {
            return unsaid("query_pre_attn_scalar");
        }
        if self.local_rope.scaling != RopeScaling::None {
            return unsaid("a scaled rotary embedding of layers with a window");
        }
        let mut pairs = base.to_gguf(name)?;
        pairs.extend(self.windows.to_gguf(base, name, PATTERN)?);
        pairs.push(gguf::float(name, "rope.freq_base_swa", self.local_rope.theta));
        pairs.extend(self.logits_cap.map(|cap| gguf::float(name, "final_logit_softcapping", f64::from(cap))));
        Ok(pairs)
    }

    fn tensor_table(&self) -> TensorTable {
        TensorTable(&[NORMS, TensorTable::PRE_NORM])
    }

    fn ropes<'a>(&'a self, base: &'a BaseConfig) -> Vec<&'a RopeConfig> {
        vec![&base.rope, &self.local_rope]
    }

    fn attention(&self, base: &BaseConfig, layer: usize) -> Attention {
        let window = self.windows.of(layer);
        Attention {
            rope: Some(usize::from(window.is_some())),
            scale: self.attention_scale,
            window,
            ..Attention::plain(base.heads(), layer)
        }
    }

    fn decoder<B: Backend>(
        &self,
        base: &BaseConfig,
        weights: &mut Weights<'_, B>,
        positions: usize,
    ) -> Result<Box<dyn Decoder<B>>> {
        let decoder = Stack::load(base, weights, &self.ropes(base), positions, |weights, i, prefix| {
            let (module, attention) = (format!("{prefix}.self_attn"), self.attention(base, i));
            let self_attn = SelfAttention::load(weights, &module, base, attention, true)?;
            SandwichLayer::load(weights, prefix, base, self_attn, Activation::GeluTanh)
        })?;
        let embedding = (base.hidden_size as f64).sqrt() as f32;
        Ok(Box::new(decoder.multiplied(embedding, 1.0).capped(self.logits_cap)))
    }
}

/// What products of queries and keys are multiplied by in a GGUF file.
fn gguf_scale(base: &BaseConfig) -> f64 {
    match base.num_hidden_layers {
        LAYERS_OF_27B => default_scale(base.hidden_size / base.num_attention_heads),
        _ => default_scale(base.head_dim),
    }
}
