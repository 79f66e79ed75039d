//! Hyperparameters in config.json, as transformers 4 and 5 write it.

mod object;
mod rope;
mod settings;

use serde_json::Value;

pub(crate) use self::object::Object;
use self::object::missing;
use self::rope::rope;
pub(crate) use self::rope::{check_whole_heads, rope_object, rope_of, rope_of_kind, rotated_dims};
pub(crate) use self::settings::{COMMON, check_settings};
use crate::config::base::BaseConfig;
use crate::error::{LoadError, Result};

impl BaseConfig {
    /// Reads what nearly every decoder's config.json says.
    pub(crate) fn from_json(json: Object<'_>) -> Result<Self> {
        let hidden_size = json.usize("hidden_size")?;
        let num_attention_heads = json.usize("num_attention_heads")?;
        let attention_bias = json.bool("attention_bias", false)?;
        Ok(Self {
            hidden_size,
            intermediate_size: json.usize("intermediate_size")?,
            num_hidden_layers: json.usize("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads: json.opt_usize("num_key_value_heads")?.unwrap_or(num_attention_heads),
            head_dim: json.opt_usize("head_dim")?.unwrap_or(hidden_size / num_attention_heads.max(1)),
            vocab_size: json.usize("vocab_size")?,
            max_position_embeddings: json.usize("max_position_embeddings")?,
            rms_norm_eps: json.f64("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            rope: rope(json)?,
            tie_word_embeddings: json.bool("tie_word_embeddings", false)?,
            qkv_bias: attention_bias,
            o_bias: attention_bias,
            mlp_bias: json.bool("mlp_bias", false)?,
        })
    }

    /// What config.json would say of it, but for a rotary scaling.
    pub(crate) fn to_json(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("hidden_size", self.hidden_size.into()),
            ("intermediate_size", self.intermediate_size.into()),
            ("num_hidden_layers", self.num_hidden_layers.into()),
            ("num_attention_heads", self.num_attention_heads.into()),
            ("num_key_value_heads", self.num_key_value_heads.into()),
            ("head_dim", self.head_dim.into()),
            ("vocab_size", self.vocab_size.into()),
            ("max_position_embeddings", self.max_position_embeddings.into()),
            ("rms_norm_eps", self.rms_norm_eps.into()),
            ("rope_theta", self.rope.theta.into()),
            ("tie_word_embeddings", self.tie_word_embeddings.into()),
            ("attention_bias", self.qkv_bias.into()),
            ("mlp_bias", self.mlp_bias.into()),
            ("hidden_act", "silu".into()),
        ]
    }
}

/// config.json with the values that stand for those it lacks; null is there.
pub(crate) fn with_defaults(raw: &Value, defaults: Vec<(&'static str, Value)>) -> Value {
    let mut json = raw.clone();
    if let Some(object) = json.as_object_mut() {
        for (key, value) in defaults {
            object.entry(key).or_insert(value);
        }
    }
    json
}

/// The name by which the registry finds the family: the model's class, or its type where config.json names no class.
pub(crate) fn architecture(json: Object<'_>) -> Result<&str> {
    let model_type = json.str("model_type")?;
    let names = json.opt("architectures", "a list of names", |v| {
        let names = v.as_array()?;
        names.iter().all(Value::is_string).then_some(names)
    })?;
    let listed = names.and_then(|names| names.first()?.as_str());
    listed.or(model_type).ok_or_else(|| missing("architectures"))
}

/// Refuses quantised safetensors, but for those that a way of `methods` made.
pub(crate) fn check_quantization(json: Object<'_>, methods: &[&str]) -> Result<()> {
    let Some(config) = json.object("quantization_config")? else { return Ok(()) };
    let method = config.str("quant_method")?;
    if method.is_some_and(|method| methods.contains(&method)) {
        return Ok(());
    }
    let method = method.map_or_else(String::new, |method| format!(" of quant_method {method:?}"));
    Err(LoadError::Unsupported(format!(
        "quantization_config{method}: only unquantised safetensors, and gpt-oss's in MXFP4, can be read"
    )))
}

/// Refuses an MLP whose gate is another function than SiLU.
pub(crate) fn check_silu(json: Object<'_>) -> Result<()> {
    match json.str("hidden_act")? {
        Some(act) if act != "silu" => Err(LoadError::Unsupported(format!("hidden_act {act:?}; only \"silu\" is"))),
        _ => Ok(()),
    }
}

/// Refuses an MLP whose gate is another function than GELU by a hyperbolic tangent.
pub(crate) fn check_gelu(json: Object<'_>) -> Result<()> {
    const GELU: &str = "gelu_pytorch_tanh";
    match json.str("hidden_activation")? {
        Some(act) if act != GELU => Err(LoadError::Unsupported(format!("hidden_activation {act:?}; only {GELU:?} is"))),
        _ => Ok(()),
    }
}

/// Refuses what a plain decoder (SiLU, full attention, heads rotated whole) has no code for.
pub(crate) fn check_plain(json: Object<'_>) -> Result<()> {
    check_silu(json)?;
    if json.bool("use_sliding_window", false)? {
        return Err(LoadError::Unsupported("use_sliding_window: sliding-window attention".to_owned()));
    }
    check_whole_heads(json)
}
