//! Hyperparameters in the metadata of a GGUF file.

mod keys;
mod rope;
mod settings;

use nanovllm_gguf::Value;

pub(crate) use self::keys::Keys;
pub(crate) use self::rope::ROPE_TENSORS;
pub(crate) use self::settings::PLAIN;
use crate::config::base::BaseConfig;
use crate::config::rope::RopeScaling;
use crate::error::{LoadError, Result};

impl BaseConfig {
    /// Reads what nearly every decoder's metadata say; whether there are biases and an output projection shows in its
    /// tensors.
    pub(crate) fn from_gguf(keys: &Keys<'_>) -> Result<Self> {
        let hidden_size = keys.usize("embedding_length")?;
        let num_attention_heads = keys.usize("attention.head_count")?;
        let head_dim = keys.opt("attention.key_length")?.unwrap_or(hidden_size / num_attention_heads.max(1));
        let embedding = keys.tensor("token_embd.weight");
        let vocab_size = match keys.opt("vocab_size")? {
            Some(n) => n,
            None => embedding.and_then(|t| t.dims.get(1).copied()).unwrap_or(0),
        };
        Ok(Self {
            hidden_size,
            intermediate_size: match keys.first_of_layers("feed_forward_length")? {
                Some(size) => size,
                None => keys.usize("feed_forward_length")?,
            },
            num_hidden_layers: keys.usize("block_count")?,
            num_attention_heads,
            num_key_value_heads: keys.first_of_layers("attention.head_count_kv")?.unwrap_or(num_attention_heads),
            head_dim,
            vocab_size,
            max_position_embeddings: keys.usize("context_length")?,
            rms_norm_eps: keys.f32("attention.layer_norm_rms_epsilon")?,
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
        let number = |key: &str, value: usize| number(name, key, value);
        let float = |key: &str, value: f64| float(name, key, value);
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
            number("rope.dimension_count", self.rope.width(self.head_dim))?,
            number("vocab_size", self.vocab_size)?,
            float("attention.layer_norm_rms_epsilon", f64::from(self.rms_norm_eps)),
            float("rope.freq_base", self.rope.theta),
        ];
        let kind = |kind: &str| (format!("{name}.rope.scaling.type"), Value::String(kind.to_owned()));
        match &self.rope.scaling {
            // The divisors of frequencies are tensors in GGUF.
            RopeScaling::None | RopeScaling::Llama3 { .. } | RopeScaling::Factors(_) => {}
            RopeScaling::LongRope { original_max_position, attention_factor, .. } => pairs.extend([
                number("rope.scaling.original_context_length", *original_max_position)?,
                float("rope.scaling.attn_factor", *attention_factor),
            ]),
            RopeScaling::Linear { factor } => {
                pairs.extend([kind("linear"), float("rope.scaling.factor", *factor)]);
            }
            RopeScaling::Yarn { factor, original_max_position, beta_fast, beta_slow, truncate, attention_factor } => {
                if !truncate {
                    return Err(LoadError::Unsupported(
                        "YaRN with truncate of false: GGUF has no key for it".to_owned(),
                    ));
                }
                pairs.extend([
                    kind("yarn"),
                    float("rope.scaling.factor", *factor),
                    number("rope.scaling.original_context_length", *original_max_position)?,
                    float("rope.scaling.yarn_beta_fast", *beta_fast),
                    float("rope.scaling.yarn_beta_slow", *beta_slow),
                ]);
                if let Some(attention_factor) = attention_factor {
                    let usual = if *factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
                    pairs.push(float("rope.scaling.attn_factor", attention_factor / usual));
                }
            }
        }
        Ok(pairs)
    }
}

/// The pair of a key of the architecture `name` and a number.
///
/// # Errors
/// [`LoadError::Config`] for one that does not fit 32 bits.
pub(crate) fn number(name: &str, key: &str, value: usize) -> Result<(String, Value)> {
    match u32::try_from(value) {
        Ok(value) => Ok((format!("{name}.{key}"), Value::U32(value))),
        Err(_) => Err(LoadError::Config(format!("{key} of {value} does not fit in 32 bits"))),
    }
}

/// The same of a number that need not be whole, which GGUF keeps in 32 bits.
pub(crate) fn float(name: &str, key: &str, value: f64) -> (String, Value) {
    (format!("{name}.{key}"), Value::F32(value as f32))
}

/// Refuses what a plain decoder has no code for: heads rotated in part, and what no decoder here has code for.
pub(crate) fn check_plain(keys: &Keys<'_>, base: &BaseConfig) -> Result<()> {
    check(keys, base)?;
    keys.check_whole_heads(base.head_dim)
}

/// Refuses mixtures of experts.
pub(crate) fn check_no_experts(keys: &Keys<'_>) -> Result<()> {
    match keys.opt("expert_count")? {
        Some(count) if count > 0 => {
            Err(LoadError::Unsupported(format!("{}: mixtures of experts", keys.name("expert_count"))))
        }
        _ => Ok(()),
    }
}

/// Refuses what only experts or layers that differ would need: mixtures of experts, layers of different heads or MLPs,
/// values of another width than keys.
pub(crate) fn check(keys: &Keys<'_>, base: &BaseConfig) -> Result<()> {
    check_no_experts(keys)?;
    check_layers(keys, base)
}

/// Refuses what a decoder of equal layers has no code for, but for mixtures of experts.
pub(crate) fn check_plain_with_experts(keys: &Keys<'_>, base: &BaseConfig) -> Result<()> {
    check_layers(keys, base)?;
    keys.check_whole_heads(base.head_dim)
}

/// Refuses layers that differ, and values of another width than keys.
fn check_layers(keys: &Keys<'_>, base: &BaseConfig) -> Result<()> {
    base.check()?; // a width of heads says something only where there are heads
    keys.check_equal_layers(base.num_hidden_layers)?;
    keys.check_values(base.head_dim)
}
