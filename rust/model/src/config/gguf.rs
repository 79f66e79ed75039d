//! Hyperparameters in the metadata of a GGUF file.

use nanovllm_gguf::{GgufFile, Metadata, Value};

use crate::config::base::BaseConfig;
use crate::config::rope::{RopeConfig, RopeScaling};
use crate::config::settings::{Group, Literal, Settings, Treatment};
use crate::error::{LoadError, Result};

/// The metadata keys of a plain decoder, without the architecture's name that they begin with: the names of llama.cpp.
pub(crate) const PLAIN: &[Group] = &[
    (
        Treatment::Read,
        &[
            "vocab_size",
            "context_length",
            "embedding_length",
            "block_count",
            "feed_forward_length",
            "expert_count",
            "attention.head_count",
            "attention.head_count_kv",
            "attention.key_length",
            "attention.value_length",
            "attention.layer_norm_rms_epsilon",
            "rope.dimension_count",
            "rope.freq_base",
            "rope.scale_linear",
            "rope.scaling.type",
            "rope.scaling.factor",
            "rope.scaling.original_context_length",
            "rope.scaling.attn_factor",
            "rope.scaling.yarn_ext_factor",
            "rope.scaling.yarn_beta_fast",
            "rope.scaling.yarn_beta_slow",
        ],
    ),
    (
        Treatment::Harmless,
        &[
            // Where the tensors came from, how an embedding is pooled of them, and how the scaling was trained.
            "tensor_data_layout",
            "pooling_type",
            "rope.scaling.finetuned",
            // Of norms that take the mean off, which there are none of.
            "attention.layer_norm_epsilon",
            // Of layers with a sliding window, which are refused.
            "rope.freq_base_swa",
            "rope.dimension_count_swa",
            "attention.key_length_swa",
            "attention.value_length_swa",
        ],
    ),
    (Treatment::Only(&[Literal::Bool(true)]), &["attention.causal"]),
    (Treatment::Only(&[Literal::Text("silu")]), &["hidden_activation"]),
    (Treatment::Only(&[Literal::Bool(false)]), &["use_parallel_residual", "swin_norm", "expert_weights_norm"]),
    // Zero stands for no such scale.
    (
        Treatment::Only(&[Literal::Number(0.0), Literal::Number(1.0)]),
        &["logit_scale", "residual_scale", "embedding_scale", "attention.output_scale", "expert_weights_scale"],
    ),
    (Treatment::Only(&[Literal::Number(1.0)]), &["rope.scaling.yarn_attn_factor"]),
    (Treatment::Only(&[Literal::Number(0.0), Literal::Bool(false)]), &["attention.sliding_window_pattern"]),
    (
        Treatment::Only(&[Literal::Number(0.0)]),
        &[
            // Attention that is scaled, capped, clamped, biased or windowed; zero stands for the usual one.
            "attention.scale",
            "attention.max_alibi_bias",
            "attention.clamp_kqv",
            "attention.sliding_window",
            "attention.temperature_length",
            "attention.temperature_scale",
            "attention.shared_kv_layers",
            "attention.key_length_mla",
            "attention.value_length_mla",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "full_attention_interval",
            "rope.dimension_sections",
            "rope.scaling.alpha",
            "rope.scaling.yarn_log_multiplier",
            // Experts, and layers that are not those of a decoder.
            "expert_used_count",
            "expert_shared_count",
            "expert_feed_forward_length",
            "expert_shared_feed_forward_length",
            "expert_chunk_feed_forward_length",
            "expert_group_count",
            "expert_group_used_count",
            "expert_group_scale",
            "expert_gating_func",
            "experts_per_group",
            "router_logit_softcapping",
            "moe_every_n_layers",
            "moe_latent_size",
            "interleave_moe_layer_step",
            "leading_dense_block_count",
            "nextn_predict_layers",
            "n_deepstack_layers",
            "embedding_length_out",
            "embedding_length_per_layer_input",
            "swiglu_clamp_exp",
            "swiglu_clamp_shexp",
        ],
    ),
];

impl BaseConfig {
    /// Reads what nearly every decoder's metadata say; whether there are biases and an output projection shows in its
    /// tensors.
    pub(crate) fn from_gguf(keys: &Keys<'_>) -> Result<Self> {
        let hidden_size = keys.usize("embedding_length")?;
        let num_attention_heads = keys.usize("attention.head_count")?;
        let head_dim = keys.opt("attention.key_length")?.unwrap_or(hidden_size / num_attention_heads.max(1));
        let embedding = keys.file.tensor("token_embd.weight");
        let vocab_size = match keys.opt("vocab_size")? {
            Some(n) => n,
            None => embedding.and_then(|t| t.dims.get(1).copied()).unwrap_or(0),
        };
        Ok(Self {
            hidden_size,
            intermediate_size: keys.usize("feed_forward_length")?,
            num_hidden_layers: keys.usize("block_count")?,
            num_attention_heads,
            num_key_value_heads: keys.opt("attention.head_count_kv")?.unwrap_or(num_attention_heads),
            head_dim,
            vocab_size,
            max_position_embeddings: keys.usize("context_length")?,
            rms_norm_eps: keys.metadata.f32(&keys.name("attention.layer_norm_rms_epsilon"))?,
            rope: keys.rope()?,
            tie_word_embeddings: !keys.has("output.weight"),
            qkv_bias: keys.has("blk.0.attn_q.bias"),
            o_bias: keys.has("blk.0.attn_output.bias"),
            mlp_bias: keys.has("blk.0.ffn_down.bias"),
        })
    }

    /// The metadata of a GGUF file of such a model; `name` is the family's `general.architecture`.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`] for what GGUF has no key for; [`LoadError::Config`] for a number that does not fit 32
    /// bits.
    pub(crate) fn to_gguf(&self, name: &str) -> Result<Vec<(String, Value)>> {
        let number = |key: &str, value: usize| match u32::try_from(value) {
            Ok(value) => Ok((format!("{name}.{key}"), Value::U32(value))),
            Err(_) => Err(LoadError::Config(format!("{key} of {value} does not fit in 32 bits"))),
        };
        let float = |key: &str, value: f32| (format!("{name}.{key}"), Value::F32(value));
        let mut pairs = vec![
            ("general.architecture".to_owned(), Value::String(name.to_owned())),
            number("block_count", self.num_hidden_layers)?,
            number("context_length", self.max_position_embeddings)?,
            number("embedding_length", self.hidden_size)?,
            number("feed_forward_length", self.intermediate_size)?,
            number("attention.head_count", self.num_attention_heads)?,
            number("attention.head_count_kv", self.num_key_value_heads)?,
            number("attention.key_length", self.head_dim)?,
            number("attention.value_length", self.head_dim)?,
            number("rope.dimension_count", self.head_dim)?,
            number("vocab_size", self.vocab_size)?,
            float("attention.layer_norm_rms_epsilon", self.rms_norm_eps),
            float("rope.freq_base", self.rope.theta as f32),
        ];
        let kind = |kind: &str| (format!("{name}.rope.scaling.type"), Value::String(kind.to_owned()));
        match &self.rope.scaling {
            // Llama 3's scaling is a tensor in GGUF.
            RopeScaling::None | RopeScaling::Llama3 { .. } | RopeScaling::Factors(_) => {}
            RopeScaling::Linear { factor } => {
                pairs.extend([kind("linear"), float("rope.scaling.factor", *factor as f32)]);
            }
            RopeScaling::Yarn { factor, original_max_position, beta_fast, beta_slow, truncate, attention_factor } => {
                if !truncate {
                    return Err(LoadError::Unsupported(
                        "YaRN with truncate of false: GGUF has no key for it".to_owned(),
                    ));
                }
                pairs.extend([
                    kind("yarn"),
                    float("rope.scaling.factor", *factor as f32),
                    number("rope.scaling.original_context_length", *original_max_position)?,
                    float("rope.scaling.yarn_beta_fast", *beta_fast as f32),
                    float("rope.scaling.yarn_beta_slow", *beta_slow as f32),
                ]);
                if let Some(attention_factor) = attention_factor {
                    let usual = if *factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
                    pairs.push(float("rope.scaling.attn_factor", (attention_factor / usual) as f32));
                }
            }
        }
        Ok(pairs)
    }
}

/// Refuses what a plain decoder has no code for: experts, heads rotated in part, values of another width than keys.
pub(crate) fn check_plain(keys: &Keys<'_>, base: &BaseConfig) -> Result<()> {
    if keys.opt("expert_count")?.is_some_and(|n| n > 0) {
        return Err(LoadError::Unsupported(format!("{}: mixtures of experts", keys.name("expert_count"))));
    }
    base.check()?; // a width of heads says something only where there are heads
    keys.check_heads(base.head_dim)
}

/// The metadata of a file with typed look-ups, by keys without the architecture's name that they begin with. Those that
/// return an option give `None` where the key is missing; an error names the key.
pub(crate) struct Keys<'a> {
    file: &'a GgufFile,
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(file: &'a GgufFile, architecture: &'a str) -> Self {
        Self { file, metadata: file.metadata(), architecture }
    }

    /// The whole name of a key.
    pub(crate) fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    pub(crate) fn usize(&self, key: &str) -> Result<usize> {
        Ok(usize::try_from(self.metadata.u64(&self.name(key))?).unwrap_or(usize::MAX))
    }

    pub(crate) fn opt(&self, key: &str) -> Result<Option<usize>> {
        Ok(self.metadata.opt_u64(&self.name(key))?.map(|n| usize::try_from(n).unwrap_or(usize::MAX)))
    }

    /// Whether the file has a tensor of this name.
    pub(crate) fn has(&self, tensor: &str) -> bool {
        self.file.tensor(tensor).is_some()
    }

    /// Refuses heads that are rotated in part, and values of another width than keys.
    fn check_heads(&self, head_dim: usize) -> Result<()> {
        let rotated = self.opt("rope.dimension_count")?;
        if let Some(rotated) = rotated.filter(|&n| n > head_dim) {
            let key = self.name("rope.dimension_count");
            return Err(LoadError::Config(format!(
                "{key} is {rotated}, more than the {head_dim} dimensions of a head"
            )));
        }
        for (key, value) in
            [("attention.value_length", self.opt("attention.value_length")?), ("rope.dimension_count", rotated)]
        {
            if let Some(value) = value.filter(|&n| n != head_dim) {
                let key = self.name(key);
                return Err(LoadError::Unsupported(format!(
                    "{key} of {value} beside heads of {head_dim}; they must be equal"
                )));
            }
        }
        Ok(())
    }

    /// Refuses the metadata that there is no code for, and gives the names of those that nobody knows.
    pub(crate) fn check_settings(&self, settings: Settings) -> Result<Vec<String>> {
        let prefix = self.name("");
        let own = self.metadata.iter().filter_map(|(key, value)| Some((key.strip_prefix(&prefix)?, value)));
        settings.check(own, &prefix)
    }

    pub(crate) fn f64(&self, key: &str) -> Result<Option<f64>> {
        Ok(self.metadata.opt_f32(&self.name(key))?.map(f64::from))
    }

    fn unsupported(&self, key: &str, what: impl std::fmt::Display) -> LoadError {
        LoadError::Unsupported(format!("{} is {what}", self.name(key)))
    }

    /// Reads the rotary embedding, where llama.cpp would read it.
    fn rope(&self) -> Result<RopeConfig> {
        let theta = self.f64("rope.freq_base")?.unwrap_or(10000.0);
        let scaling = self.rope_scaling()?;
        let Some(factors) = self.file.tensor("rope_freqs.weight") else { return Ok(RopeConfig { theta, scaling }) };
        if !matches!(scaling, RopeScaling::None | RopeScaling::Linear { factor: 1.0 }) {
            let key = self.name("rope.scaling.factor");
            let reason = format!("{key}: a scaling beside that of the tensor rope_freqs.weight");
            return Err(LoadError::Unsupported(reason));
        }
        // Llama 3's scaling, already worked out by whoever converted the model.
        self.file.check(factors.name)?;
        Ok(RopeConfig { theta, scaling: RopeScaling::Factors(factors.to_f32()?) })
    }

    fn rope_scaling(&self) -> Result<RopeScaling> {
        const ORIGINAL: &str = "rope.scaling.original_context_length";
        const ATTENTION: &str = "rope.scaling.attn_factor";
        const EXTRAPOLATED: &str = "rope.scaling.yarn_ext_factor";
        // The second is the key's old name.
        let factor = match self.f64("rope.scaling.factor")? {
            None => self.f64("rope.scale_linear")?,
            factor => factor,
        };
        let needed = || -> Result<f64> {
            Ok(factor.map_or_else(|| self.metadata.f32(&self.name("rope.scaling.factor")).map(f64::from), Ok)?)
        };
        let original = self.opt(ORIGINAL)?;
        let attention = self.f64(ATTENTION)?.unwrap_or(1.0);
        // The share of YaRN in the frequencies, where a negative number stands for all or nothing by the type.
        let extrapolated = self.f64(EXTRAPOLATED)?.filter(|&share| share >= 0.0);
        let beta_fast = self.f64("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0);
        let beta_slow = self.f64("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0);
        let scaling = match self.metadata.opt_str(&self.name("rope.scaling.type"))? {
            Some("none") => RopeScaling::None,
            None => match factor {
                Some(factor) if factor != 1.0 => RopeScaling::Linear { factor },
                _ => RopeScaling::None,
            },
            Some("linear") => RopeScaling::Linear { factor: needed()? },
            Some("yarn") => {
                let factor = needed()?;
                let usual = if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
                if let Some(share) = extrapolated.filter(|&share| share != 1.0) {
                    return Err(self.unsupported(EXTRAPOLATED, format_args!("{share}; only 1 is supported with YaRN")));
                }
                return Ok(RopeScaling::Yarn {
                    factor,
                    original_max_position: original.map_or_else(|| self.usize(ORIGINAL), Ok)?,
                    beta_fast,
                    beta_slow,
                    truncate: true,
                    attention_factor: (attention != 1.0).then_some(usual * attention),
                });
            }
            Some(other) => {
                let what = format_args!("{other:?}; supported: none, linear, yarn");
                return Err(self.unsupported("rope.scaling.type", what));
            }
        };
        for (key, value, usual) in [(ATTENTION, attention, 1.0), (EXTRAPOLATED, extrapolated.unwrap_or(0.0), 0.0)] {
            if value != usual {
                return Err(self.unsupported(key, format_args!("{value}; only {usual} is supported without YaRN")));
            }
        }
        Ok(scaling)
    }
}
