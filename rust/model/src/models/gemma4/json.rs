//! A Gemma 4's config.json.

use std::collections::HashMap;

use nanovllm_backend::KvHeads;
use serde_json::Value;

use super::Config;
use crate::config::experts::ExpertsConfig;
use crate::config::json::{self, Object};
use crate::config::settings::{Group, Literal, Settings, Treatment};
use crate::config::{BaseConfig, RopeConfig, RopeScaling, Windows};
use crate::error::{LoadError, Result};

/// The type of the 12B model's decoder, which is given nothing beside the stream.
pub(super) const UNIFIED: &str = "gemma4_unified_text";

const GLOBAL_ROPE: &str = "rope_parameters.full_attention";
const LOCAL_ROPE: &str = "rope_parameters.sliding_attention";
/// One layer of so many sees everything, where nothing else is said.
const PATTERN: usize = 6;
/// The share of heads that layers without a window rotate, where nothing else is said.
const ROTATED: f64 = 0.25;

const OWN: &[Group] = &[
    (
        Treatment::Read,
        &[
            "hidden_activation",
            "sliding_window",
            "layer_types",
            GLOBAL_ROPE,
            LOCAL_ROPE,
            "final_logit_softcapping",
            "hidden_size_per_layer_input",
            "vocab_size_per_layer_input",
            "attention_k_eq_v",
            "num_kv_shared_layers",
            "use_double_wide_mlp",
            "global_head_dim",
            "num_global_key_value_heads",
            "per_layer_config",
            "enable_moe_block",
            // Where that is true.
            "num_experts",
            "top_k_experts",
            "moe_intermediate_size",
        ],
    ),
    // Text is seen one way; all ways is of encoders.
    (Treatment::Only(&[Literal::Text("vision")]), &["use_bidirectional_attention"]),
    // The activation under a name that nothing reads.
    (Treatment::Harmless, &["hidden_act"]),
];

pub(super) const SETTINGS: Settings = Settings(&[OWN, json::COMMON]);

pub(super) fn defaults(json: Object<'_>) -> Vec<(&'static str, Value)> {
    let (context, window) = if is_unified(json) { (262_144, 1024) } else { (131_072, 512) };
    vec![
        ("vocab_size", 262_144.into()),
        ("hidden_size", 2304.into()),
        ("intermediate_size", 9216.into()),
        ("num_hidden_layers", 30.into()),
        ("num_attention_heads", 8.into()),
        ("num_key_value_heads", 4.into()),
        ("head_dim", 256.into()),
        ("max_position_embeddings", context.into()),
        ("sliding_window", window.into()),
        ("hidden_size_per_layer_input", 256.into()),
        ("tie_word_embeddings", true.into()),
    ]
}

fn is_unified(json: Object<'_>) -> bool {
    json.get("model_type").and_then(Value::as_str) == Some(UNIFIED)
}

pub(super) fn read(json: Object<'_>, base: &mut BaseConfig) -> Result<Config> {
    json::check_gelu(json)?;
    base.mlp_bias = false;
    base.check()?; // what follows makes lists as long as there are layers
    let mut slides = match Windows::kinds(json, base)? {
        Some(slides) => slides,
        None => (0..base.num_hidden_layers).map(Windows::by_pattern(PATTERN)).collect(),
    };
    // Whatever it is called: transformers makes it so.
    slides[base.num_hidden_layers - 1] = false;
    let windows = Windows::new(base, Some(json.usize("sliding_window")?), |layer| slides[layer])?;

    let local_heads = base.kv_heads();
    let values_are_keys = json.bool("attention_k_eq_v", false)?;
    let global_heads = global_heads(json, local_heads, &slides, values_are_keys)?;
    (base.num_key_value_heads, base.head_dim) = (global_heads.num_kv_heads, global_heads.head_dim);
    base.check()?; // and as long as heads are wide

    base.rope = match json::rope_of_kind(json, "full_attention")? {
        Some(rope) if rope.str("rope_type")? == Some("proportional") => proportional(rope, base.head_dim)?,
        Some(rope) => json::rope_of(json, GLOBAL_ROPE, rope, 1e6)?,
        None => rotated_in_part(1e6, ROTATED, 1.0, base.head_dim)?,
    };
    let local_rope = match json::rope_of_kind(json, "sliding_attention")? {
        Some(rope) => json::rope_of(json, LOCAL_ROPE, rope, 1e4)?,
        None => RopeConfig { theta: 1e4, scaling: RopeScaling::None, dims: None },
    };

    let per_layer_width = json.opt_usize("hidden_size_per_layer_input")?.filter(|_| !is_unified(json)).unwrap_or(0);
    let tokens = json.opt_usize("vocab_size_per_layer_input")?.unwrap_or(base.vocab_size);
    if per_layer_width > 0 && tokens != base.vocab_size {
        return Err(LoadError::Unsupported(format!(
            "vocab_size_per_layer_input of {tokens} beside a vocabulary of {}",
            base.vocab_size
        )));
    }
    let experts = if json.bool("enable_moe_block", false)? {
        let experts = ExpertsConfig {
            num_experts: json.usize("num_experts")?,
            experts_per_row: json.usize("top_k_experts")?,
            intermediate_size: json.usize("moe_intermediate_size")?,
            shared_size: None,
            normalized: true,
            bias: false,
        };
        Some(experts.checked()?)
    } else {
        None
    };
    Ok(Config {
        windows,
        local_heads,
        local_rope: RopeConfig { dims: Some(local_heads.head_dim), ..local_rope },
        values_are_keys,
        shared_layers: json.opt_usize("num_kv_shared_layers")?.unwrap_or(0),
        double_wide: json.bool("use_double_wide_mlp", false)?,
        per_layer_width,
        experts,
        logits_cap: json.soft_cap("final_logit_softcapping")?,
    })
}

/// The key and value heads of layers without a window, which transformers 5 lists layer by layer.
fn global_heads(json: Object<'_>, local: KvHeads, slides: &[bool], values_are_keys: bool) -> Result<KvHeads> {
    let Some(layers) = json.object("per_layer_config")? else {
        let num_kv_heads = json.opt_usize("num_global_key_value_heads")?.filter(|_| values_are_keys);
        return Ok(KvHeads {
            num_kv_heads: num_kv_heads.unwrap_or(local.num_kv_heads),
            head_dim: json.opt_usize("global_head_dim")?.unwrap_or(512),
        });
    };
    let is_layer = |key: &str| key.parse().is_ok_and(|layer: usize| layer < slides.len());
    if let Some((key, _)) = layers.pairs().find(|(key, _)| !is_layer(key)) {
        return Err(LoadError::Config(format!("per_layer_config.{key} is no layer")));
    }
    // Since 5.15 numbers have leading zeros.
    let names: HashMap<usize, &str> =
        layers.pairs().filter_map(|(key, _)| Some((key.parse::<usize>().ok()?, key))).collect();
    if let Some((key, _)) =
        layers.pairs().find(|(key, _)| key.parse().ok().and_then(|layer| names.get(&layer)) != Some(key))
    {
        return Err(LoadError::Config(format!("per_layer_config.{key} says what another key says")));
    }
    let mut found = None;
    for (layer, &slides) in slides.iter().enumerate() {
        let listed = names.get(&layer).map(|key| layers.object(key)).transpose()?.flatten();
        for (key, _) in listed.iter().flat_map(|listed| listed.pairs()) {
            if !["head_dim", "num_key_value_heads"].contains(&key) {
                return Err(LoadError::Unsupported(format!("per_layer_config.{layer}.{key}")));
            }
        }
        let number = |key: &str, usual: usize| {
            Ok::<_, LoadError>(listed.map(|listed| listed.opt_usize(key)).transpose()?.flatten().unwrap_or(usual))
        };
        let heads = KvHeads {
            num_kv_heads: number("num_key_value_heads", local.num_kv_heads)?,
            head_dim: number("head_dim", local.head_dim)?,
        };
        let expected = if slides { local } else { *found.get_or_insert(heads) };
        if heads != expected {
            return Err(LoadError::Unsupported(format!(
                "per_layer_config: layer {layer} is not as others of its kind"
            )));
        }
    }
    Ok(found.unwrap_or(local))
}

/// Proportional rotation (`modeling_rope_utils`): the frequencies are those of whole heads, but only the first of them turn.
fn proportional(rope: Object<'_>, head_dim: usize) -> Result<RopeConfig> {
    let share = rope.f64("partial_rotary_factor")?.unwrap_or(1.0);
    let factor = rope.f64("factor")?.unwrap_or(1.0);
    rotated_in_part(rope.f64("rope_theta")?.unwrap_or(1e6), share, factor, head_dim)
}

fn rotated_in_part(theta: f64, share: f64, factor: f64, head_dim: usize) -> Result<RopeConfig> {
    if !(share > 0.0 && share <= 1.0) {
        return Err(LoadError::Config(format!("partial_rotary_factor must be above 0 and at most 1, got {share}")));
    }
    let turning = (share * head_dim as f64 / 2.0) as usize;
    // What llama.cpp's converter divides the frequencies by that do not turn: angles are then as good as 0.
    let factors = (0..head_dim / 2).map(|i| if i < turning { factor as f32 } else { 1e30 });
    Ok(RopeConfig { theta, scaling: RopeScaling::Factors(factors.collect()), dims: None })
}

pub(super) fn write(config: &Config) -> Vec<(&'static str, Value)> {
    let experts = config.experts.as_ref();
    vec![
        ("hidden_activation", "gelu_pytorch_tanh".into()),
        ("hidden_act", Value::Null),
        ("sliding_window", config.windows.size().into()),
        ("layer_types", config.windows.to_json()),
        ("num_key_value_heads", config.local_heads.num_kv_heads.into()),
        ("head_dim", config.local_heads.head_dim.into()),
        ("attention_k_eq_v", config.values_are_keys.into()),
        ("num_kv_shared_layers", config.shared_layers.into()),
        ("use_double_wide_mlp", config.double_wide.into()),
        ("enable_moe_block", experts.is_some().into()),
        ("num_experts", experts.map(|experts| experts.num_experts).into()),
        ("top_k_experts", experts.map(|experts| experts.experts_per_row).into()),
        ("moe_intermediate_size", experts.map(|experts| experts.intermediate_size).into()),
        ("hidden_size_per_layer_input", config.per_layer_width.into()),
        ("final_logit_softcapping", config.logits_cap.into()),
    ]
}
