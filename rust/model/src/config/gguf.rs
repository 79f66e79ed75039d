//! The same hyperparameters from GGUF metadata.

use nanovllm_gguf::{GgufFile, Metadata};
use serde_json::json;

use super::{Architecture, ModelConfig, RopeConfig, RopeScaling, SUPPORTED};
use crate::error::{LoadError, Result};

impl ModelConfig {
    /// Reads the metadata of a GGUF file; what it does not say (tied embeddings, biases) follows from its tensors.
    ///
    /// # Errors
    /// [`LoadError::UnsupportedArchitecture`], [`LoadError::Unsupported`], [`LoadError::Config`], and
    /// [`LoadError::Gguf`] naming the key.
    pub fn from_gguf(file: &GgufFile) -> Result<Self> {
        let metadata = file.metadata();
        let name = metadata.str("general.architecture")?;
        let (architecture, class) = match name {
            "qwen3" => (Architecture::Qwen3, "Qwen3ForCausalLM"),
            "llama" => (Architecture::Llama, "LlamaForCausalLM"),
            _ => {
                return Err(LoadError::UnsupportedArchitecture { name: name.to_owned(), supported: SUPPORTED });
            }
        };
        let keys = Keys { metadata, architecture: name };
        if keys.opt("expert_count")?.is_some_and(|n| n > 0) {
            return Err(LoadError::Unsupported(format!("{name}.expert_count: mixtures of experts")));
        }
        let hidden_size = keys.usize("embedding_length")?;
        let num_attention_heads = keys.usize("attention.head_count")?;
        let head_dim = keys.opt("attention.key_length")?.unwrap_or(hidden_size / num_attention_heads.max(1));
        let embedding = file.tensor("token_embd.weight");
        let vocab_size = match keys.opt("vocab_size")? {
            Some(n) => n,
            None => embedding.and_then(|t| t.dims.get(1).copied()).unwrap_or(0),
        };
        let has = |tensor: &str| file.tensor(tensor).is_some();
        let mut config = Self {
            architecture,
            hidden_size,
            intermediate_size: keys.usize("feed_forward_length")?,
            num_hidden_layers: keys.usize("block_count")?,
            num_attention_heads,
            num_key_value_heads: keys.opt("attention.head_count_kv")?.unwrap_or(num_attention_heads),
            head_dim,
            vocab_size,
            max_position_embeddings: keys.usize("context_length")?,
            rms_norm_eps: metadata.f32(&keys.name("attention.layer_norm_rms_epsilon"))?,
            rope: keys.rope(file)?,
            tie_word_embeddings: !has("output.weight"),
            qkv_bias: has("blk.0.attn_q.bias"),
            o_bias: has("blk.0.attn_output.bias"),
            mlp_bias: has("blk.0.ffn_down.bias"),
            qk_norm: architecture == Architecture::Qwen3,
            raw: serde_json::Value::Null,
        }
        .validate()?;
        keys.check_heads(config.head_dim)?;
        config.raw = config.to_json(class, name);
        Ok(config)
    }

    /// What config.json would say.
    fn to_json(&self, class: &str, model_type: &str) -> serde_json::Value {
        json!({
            "architectures": [class],
            "model_type": model_type,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope.theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": self.qkv_bias,
            "mlp_bias": self.mlp_bias,
            "hidden_act": "silu",
        })
    }
}

/// Keys under the architecture's name.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn usize(&self, key: &str) -> Result<usize> {
        Ok(usize::try_from(self.metadata.u64(&self.name(key))?).unwrap_or(usize::MAX))
    }

    fn opt(&self, key: &str) -> Result<Option<usize>> {
        Ok(self.metadata.opt_u64(&self.name(key))?.map(|n| usize::try_from(n).unwrap_or(usize::MAX)))
    }

    /// Heads are rotated whole, and those of values are as wide as those of keys.
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

    fn rope(&self, file: &GgufFile) -> Result<RopeConfig> {
        let theta = f64::from(self.metadata.opt_f32(&self.name("rope.freq_base"))?.unwrap_or(10000.0));
        if let Some(factors) = file.tensor("rope_freqs.weight") {
            // Llama 3's scaling, already worked out by whoever converted the model.
            file.check(factors.name)?;
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
