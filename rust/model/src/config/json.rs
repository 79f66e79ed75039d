//! Hyperparameters in config.json, as transformers 4 and 5 write it.

use serde_json::Value;

use crate::config::base::BaseConfig;
use crate::config::rope::{RopeConfig, RopeScaling};
use crate::error::{LoadError, Result};

/// A JSON object with typed look-ups. Those that return an option give `None` where the key is missing or null; an
/// error names the key.
#[derive(Clone, Copy)]
pub(crate) struct Object<'a>(pub(crate) &'a Value);

impl<'a> Object<'a> {
    /// The value of `key`; null counts as missing.
    pub(crate) fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    fn opt<T>(self, key: &str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let read = |v| read(v).ok_or_else(|| LoadError::Config(format!("{key} must be {kind}, got {v}")));
        self.get(key).map(read).transpose()
    }

    pub(crate) fn opt_usize(self, key: &str) -> Result<Option<usize>> {
        self.opt(key, "a non-negative integer", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    pub(crate) fn usize(self, key: &str) -> Result<usize> {
        self.opt_usize(key)?.ok_or_else(|| missing(key))
    }

    pub(crate) fn f64(self, key: &str) -> Result<Option<f64>> {
        self.opt(key, "a number", Value::as_f64)
    }

    pub(crate) fn bool(self, key: &str, default: bool) -> Result<bool> {
        Ok(self.opt(key, "a boolean", Value::as_bool)?.unwrap_or(default))
    }

    pub(crate) fn str(self, key: &str) -> Result<Option<&'a str>> {
        self.opt(key, "a string", Value::as_str)
    }
}

fn missing(key: &str) -> LoadError {
    LoadError::Config(format!("{key} is missing"))
}

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

impl RopeConfig {
    /// Reads what config.json says of rotary embeddings: `rope_parameters`, or `rope_theta` beside `rope_scaling`; and
    /// `max_position_embeddings` where a scaling does not say what the model was trained on.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`] for a scaling there is no code for, and [`LoadError::Config`] naming the key.
    pub fn from_json(raw: &Value) -> Result<Self> {
        check_whole_heads(Object(raw))?;
        rope(Object(raw))
    }
}

/// The name by which the registry finds the family: the model's class, or its type where config.json names no class.
pub(crate) fn architecture(json: Object<'_>) -> Result<&str> {
    let listed = json.get("architectures").and_then(|v| v.get(0)).and_then(Value::as_str);
    listed.or(json.str("model_type")?).ok_or_else(|| missing("architectures"))
}

/// The object in which config.json describes rotary embeddings, if it has one.
fn rope_object(json: Object<'_>) -> Option<Object<'_>> {
    json.get("rope_parameters").or_else(|| json.get("rope_scaling")).map(Object)
}

/// Refuses heads that are rotated in part.
fn check_whole_heads(json: Object<'_>) -> Result<()> {
    let partial = rope_object(json).map(|rope| rope.f64("partial_rotary_factor")).transpose()?.flatten();
    match partial.filter(|&factor| factor != 1.0) {
        Some(factor) => Err(LoadError::Unsupported(format!("partial_rotary_factor {factor}"))),
        None => Ok(()),
    }
}

/// Refuses what a plain decoder (SiLU, full attention, heads rotated whole) has no code for.
pub(crate) fn check_plain(json: Object<'_>) -> Result<()> {
    if let Some(act) = json.str("hidden_act")?.filter(|&act| act != "silu") {
        return Err(LoadError::Unsupported(format!("hidden_act {act:?}; only \"silu\" is")));
    }
    if json.bool("use_sliding_window", false)? {
        return Err(LoadError::Unsupported("use_sliding_window: sliding-window attention".to_owned()));
    }
    check_whole_heads(json)
}

/// Reads the rotary embedding: transformers 4 writes `rope_theta` and `rope_scaling` side by side, transformers 5 both
/// under `rope_parameters`.
fn rope(json: Object<'_>) -> Result<RopeConfig> {
    let Some(scaling) = rope_object(json) else {
        return Ok(RopeConfig { theta: json.f64("rope_theta")?.unwrap_or(10000.0), scaling: RopeScaling::None });
    };
    let theta = match scaling.f64("rope_theta")? {
        Some(theta) => theta,
        None => json.f64("rope_theta")?.unwrap_or(10000.0),
    };
    let number = |key: &str| scaling.f64(key)?.ok_or_else(|| missing(&format!("rope_scaling.{key}")));
    let original = || -> Result<usize> {
        match scaling.opt_usize("original_max_position_embeddings")? {
            Some(n) => Ok(n),
            None => json.usize("max_position_embeddings"),
        }
    };
    let kind = match scaling.str("rope_type")? {
        Some(kind) => kind,
        None => scaling.str("type")?.unwrap_or("default"),
    };
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: number("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_max_position: original()?,
        },
        "yarn" => RopeScaling::Yarn {
            factor: number("factor")?,
            original_max_position: original()?,
            beta_fast: scaling.f64("beta_fast")?.unwrap_or(32.0),
            beta_slow: scaling.f64("beta_slow")?.unwrap_or(1.0),
            truncate: scaling.bool("truncate", true)?,
            attention_factor: yarn_attention_factor(scaling, number("factor")?)?,
        },
        other => {
            return Err(LoadError::Unsupported(format!(
                "rope scaling {other:?}; supported: default, linear, llama3, yarn"
            )));
        }
    };
    Ok(RopeConfig { theta, scaling })
}

/// The attention factor, given as such or (DeepSeek) as the ratio of two scales.
fn yarn_attention_factor(scaling: Object<'_>, factor: f64) -> Result<Option<f64>> {
    if let Some(given) = scaling.f64("attention_factor")? {
        return Ok(Some(given));
    }
    let scale = |m: f64| if factor > 1.0 { 0.1 * m * factor.ln() + 1.0 } else { 1.0 };
    let (mscale, all_dim) = (scaling.f64("mscale")?, scaling.f64("mscale_all_dim")?);
    Ok(mscale.zip(all_dim).filter(|&(m, a)| m != 0.0 && a != 0.0).map(|(m, a)| scale(m) / scale(a)))
}
