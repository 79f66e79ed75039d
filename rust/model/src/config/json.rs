//! Hyperparameters in config.json, as transformers 4 and 5 write it.

use serde_json::Value;

use crate::config::base::BaseConfig;
use crate::config::rope::{RopeConfig, RopeScaling};
use crate::config::settings::{Group, Literal, Settings, Treatment};
use crate::error::{LoadError, Result};

/// The settings of config.json that models of every family have.
pub(crate) const COMMON: &[Group] = &[
    (
        Treatment::Read,
        &[
            "architectures",
            "model_type",
            "quantization_config",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "vocab_size",
            "max_position_embeddings",
            "rms_norm_eps",
            "rope_theta",
            "rope_scaling",
            "rope_parameters",
            "partial_rotary_factor",
            "tie_word_embeddings",
            "attention_bias",
            "mlp_bias",
            "hidden_act",
            "use_sliding_window",
        ],
    ),
    // Encoders, layers that look at an encoder, rotary pairs of neighbours, layers that differ, and heads that are cut
    // out.
    (Treatment::Only(&[Literal::Bool(false)]), &["is_encoder_decoder", "add_cross_attention", "rope_interleaved"]),
    (Treatment::Only(&[Literal::Text("full_attention")]), &["layer_types"]),
    (Treatment::Only(&[]), &["cross_attention_hidden_size", "per_layer_config", "pruned_heads"]),
    (
        Treatment::Harmless,
        &[
            // Of training, and the slices in which products were computed then.
            "initializer_range",
            "attention_dropout",
            "pretraining_tp",
            // The tokenizer and the engine read them, here or in files of their own.
            "bos_token_id",
            "eos_token_id",
            "pad_token_id",
            "sep_token_id",
            "decoder_start_token_id",
            "tokenizer_class",
            "prefix",
            // Who wrote the file; the tensors have their own types.
            "transformers_version",
            "unsloth_version",
            "unsloth_fixed",
            "transformers.js_config",
            "is_llama_config",
            "_name_or_path",
            "torch_dtype",
            "dtype",
            // How transformers runs the model, which changes nothing of what comes out.
            "use_cache",
            "return_dict",
            "output_hidden_states",
            "output_attentions",
            "chunk_size_feed_forward",
            "is_decoder",
            "tie_encoder_decoder",
            "torchscript",
            "use_bfloat16",
            "tf_legacy_loss",
            "_attn_implementation_autoset",
            // Of other heads than the one that gives logits.
            "id2label",
            "label2id",
            "num_labels",
            "problem_type",
            "finetuning_task",
            "task_specific_params",
            // Defaults of transformers' sampling, which each request says for itself.
            "temperature",
            "top_k",
            "top_p",
            "typical_p",
            "do_sample",
            "early_stopping",
            "num_beams",
            "num_beam_groups",
            "diversity_penalty",
            "repetition_penalty",
            "length_penalty",
            "no_repeat_ngram_size",
            "encoder_no_repeat_ngram_size",
            "bad_words_ids",
            "num_return_sequences",
            "output_scores",
            "return_dict_in_generate",
            "forced_bos_token_id",
            "forced_eos_token_id",
            "remove_invalid_values",
            "exponential_decay_length_penalty",
            "suppress_tokens",
            "begin_suppress_tokens",
            "max_length",
            "min_length",
        ],
    ),
];

/// Refuses the settings of config.json that there is no code for, and gives the names of those that nobody knows.
pub(crate) fn check_settings(json: Object<'_>, settings: Settings) -> Result<Vec<String>> {
    let mut unknown = settings.check(json.pairs(), "")?;
    if let Some((name, rope)) = rope_object(json)? {
        let known = rope_settings(rope_kind(rope)?);
        for (key, value) in rope.pairs() {
            if value.is_object() {
                // One for each kind of layer, or something newer.
                return Err(LoadError::Unsupported(format!("{name}.{key}: a rotary embedding in several parts")));
            }
            let is_family_s = settings.treatment(&format!("rope_parameters.{key}")).is_some();
            if !is_family_s && !known.iter().any(|list| list.contains(&key)) {
                unknown.push(format!("{name}.{key}"));
            }
        }
    }
    Ok(unknown)
}

/// What is read of the description of a rotary embedding of this kind, or says nothing of it.
fn rope_settings(kind: &str) -> [&'static [&'static str]; 2] {
    let own: &[&str] = match kind {
        "linear" => &["factor"],
        "llama3" => &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"],
        "yarn" => &[
            "factor",
            "original_max_position_embeddings",
            "beta_fast",
            "beta_slow",
            "truncate",
            "attention_factor",
            "mscale",
            "mscale_all_dim",
        ],
        _ => &[],
    };
    // Whether the model was trained with the scaling changes nothing.
    [own, &["rope_type", "type", "rope_theta", "partial_rotary_factor", "finetuned"]]
}

/// A JSON object with typed look-ups. Those that return an option give `None` where the key is missing or null; an
/// error names the key.
#[derive(Clone, Copy)]
pub(crate) struct Object<'a>(pub(crate) &'a Value);

impl<'a> Object<'a> {
    /// The value of `key`; null counts as missing.
    pub(crate) fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    /// Every key with its value; null counts as missing.
    fn pairs(self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let pairs = self.0.as_object().into_iter().flatten();
        pairs.filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.as_str(), value))
    }

    fn opt<T>(self, key: &str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let read = |v| read(v).ok_or_else(|| LoadError::Config(format!("{key} must be {kind}, got {v}")));
        self.get(key).map(read).transpose()
    }

    /// Whether there is such a key, be its value null.
    pub(crate) fn has(self, key: &str) -> bool {
        self.0.get(key).is_some()
    }

    pub(crate) fn object(self, key: &str) -> Result<Option<Object<'a>>> {
        self.opt(key, "an object", |v| v.is_object().then_some(Object(v)))
    }

    pub(crate) fn list(self, key: &str) -> Result<Option<&'a [Value]>> {
        self.opt(key, "a list", |v| v.as_array().map(Vec::as_slice))
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

/// The object in which config.json describes rotary embeddings, if it has one, with its name. Where there are two, the
/// one of transformers 5 is read, and the other may say nothing else.
fn rope_object(json: Object<'_>) -> Result<Option<(&'static str, Object<'_>)>> {
    let (new, old) = (json.object("rope_parameters")?, json.object("rope_scaling")?);
    if let (Some(new), Some(old)) = (new, old)
        && let Some((key, _)) =
            old.0.as_object().into_iter().flatten().find(|(key, value)| new.0.get(key) != Some(value))
    {
        let reason = format!("rope_parameters and rope_scaling do not agree: they differ in {key:?}");
        return Err(LoadError::Config(reason));
    }
    Ok(new.map(|new| ("rope_parameters", new)).or(old.map(|old| ("rope_scaling", old))))
}

/// The kind of scaling that such an object describes.
fn rope_kind(rope: Object<'_>) -> Result<&str> {
    match rope.str("rope_type")? {
        Some(kind) => Ok(kind),
        None => Ok(rope.str("type")?.unwrap_or("default")),
    }
}

/// Refuses heads that are rotated in part.
pub(crate) fn check_whole_heads(json: Object<'_>) -> Result<()> {
    let rope = rope_object(json)?.map(|(_, rope)| rope);
    for object in [Some(json), rope].into_iter().flatten() {
        if let Some(factor) = object.f64("partial_rotary_factor")?.filter(|&factor| factor != 1.0) {
            return Err(LoadError::Unsupported(format!("partial_rotary_factor {factor}: heads rotated in part")));
        }
    }
    Ok(())
}

/// Refuses an MLP whose gate is another function than SiLU.
pub(crate) fn check_silu(json: Object<'_>) -> Result<()> {
    match json.str("hidden_act")? {
        Some(act) if act != "silu" => Err(LoadError::Unsupported(format!("hidden_act {act:?}; only \"silu\" is"))),
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

/// Reads the rotary embedding: transformers 4 writes `rope_theta` and `rope_scaling` side by side, transformers 5 both
/// under `rope_parameters`.
fn rope(json: Object<'_>) -> Result<RopeConfig> {
    let Some((name, scaling)) = rope_object(json)? else {
        return Ok(RopeConfig { theta: json.f64("rope_theta")?.unwrap_or(10000.0), scaling: RopeScaling::None });
    };
    let theta = match scaling.f64("rope_theta")? {
        Some(theta) => theta,
        None => json.f64("rope_theta")?.unwrap_or(10000.0),
    };
    let number = |key: &str| scaling.f64(key)?.ok_or_else(|| missing(&format!("{name}.{key}")));
    let original = || -> Result<usize> {
        match scaling.opt_usize("original_max_position_embeddings")? {
            Some(n) => Ok(n),
            None => json.usize("max_position_embeddings"),
        }
    };
    let scaling = match rope_kind(scaling)? {
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
