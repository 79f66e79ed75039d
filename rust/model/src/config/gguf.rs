//! Hyperparameters in the metadata of a GGUF file.

use nanovllm_gguf::{GgufFile, Metadata, Value};

use crate::config::base::BaseConfig;
use crate::config::rope::{RopeConfig, RopeScaling};
use crate::error::{LoadError, Result};

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
                if (*beta_fast, *beta_slow, *truncate, *attention_factor) != (32.0, 1.0, true, None) {
                    let reason = "YaRN with other than its default parameters cannot be written to GGUF";
                    return Err(LoadError::Unsupported(reason.to_owned()));
                }
                pairs.extend([
                    kind("yarn"),
                    float("rope.scaling.factor", *factor as f32),
                    number("rope.scaling.original_context_length", *original_max_position)?,
                ]);
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

    fn rope(&self) -> Result<RopeConfig> {
        let theta = f64::from(self.metadata.opt_f32(&self.name("rope.freq_base"))?.unwrap_or(10000.0));
        if let Some(factors) = self.file.tensor("rope_freqs.weight") {
            // Llama 3's scaling, already worked out by whoever converted the model.
            self.file.check(factors.name)?;
            let factors = factors.to_f32()?;
            return Ok(RopeConfig { theta, scaling: RopeScaling::Factors(factors) });
        }
        let factor = || -> Result<f64> { Ok(f64::from(self.metadata.f32(&self.name("rope.scaling.factor"))?)) };
        let scaling = match self.metadata.opt_str(&self.name("rope.scaling.type"))? {
            None | Some("none") => match self.metadata.opt_f32(&self.name("rope.scale_linear"))? {
                Some(factor) if factor != 1.0 => RopeScaling::Linear { factor: f64::from(factor) },
                _ => RopeScaling::None,
            },
            Some("linear") => RopeScaling::Linear { factor: factor()? },
            Some("yarn") => RopeScaling::Yarn {
                factor: factor()?,
                original_max_position: self.usize("rope.scaling.original_context_length")?,
                beta_fast: 32.0,
                beta_slow: 1.0,
                truncate: true,
                attention_factor: None,
            },
            Some(other) => {
                return Err(LoadError::Unsupported(format!(
                    "{} {other:?}; supported: none, linear, yarn",
                    self.name("rope.scaling.type")
                )));
            }
        };
        Ok(RopeConfig { theta, scaling })
    }
}
