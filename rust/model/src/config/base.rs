//! The hyperparameters that nearly every decoder has.

use nanovllm_backend::{HeadLayout, KvHeads};

use crate::config::rope::RopeConfig;
use crate::error::{LoadError, Result};

/// The hyperparameters that nearly every decoder has, under transformers' names. A family may change them after they
/// are read, where its files leave something unsaid, and has a configuration of its own for what it adds.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::struct_excessive_bools)] // they are independent switches of the checkpoint
pub struct BaseConfig {
    /// Width of the residual stream, and of what a layer takes and gives.
    pub hidden_size: usize,
    /// Width of the MLP between its projections.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads of a layer; a multiple of `num_key_value_heads`.
    pub num_attention_heads: usize,
    /// Key heads of a layer, and value heads: each serves several query heads.
    pub num_key_value_heads: usize,
    /// Width of a head, of queries, keys and values alike; even.
    pub head_dim: usize,
    /// Number of token ids, and of logits of a row.
    pub vocab_size: usize,
    /// The longest sequence the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square in every norm.
    pub rms_norm_eps: f32,
    /// The rotary embedding; where layers differ in it, that of the layers that see every position.
    pub rope: RopeConfig,
    /// Whether the output projection is the embedding's matrix.
    pub tie_word_embeddings: bool,
    /// Whether the q, k, v projections have a bias.
    pub qkv_bias: bool,
    /// Whether the output projection of attention has a bias.
    pub o_bias: bool,
    /// Whether the MLP's projections have a bias.
    pub mlp_bias: bool,
}

impl BaseConfig {
    /// The heads of a row of queries, keys and values, the same for every layer.
    pub fn heads(&self) -> HeadLayout {
        HeadLayout {
            num_heads: self.num_attention_heads,
            num_kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
        }
    }

    /// The heads that every layer keeps in the KV cache.
    pub fn kv_heads(&self) -> KvHeads {
        KvHeads { num_kv_heads: self.num_key_value_heads, head_dim: self.head_dim }
    }

    /// Refuses what no model can have, so that nothing later divides by zero or overflows.
    pub(crate) fn check(&self) -> Result<()> {
        let positive = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        for (name, value) in positive {
            // Far above any model, low enough that the product of any two fits in 64 bits with room for a third factor.
            if value == 0 || value > 1 << 28 {
                return Err(LoadError::Config(format!("{name} must be between 1 and {}, got {value}", 1 << 28)));
            }
        }
        // Each layer has entries in lists, which a number that no model has must not make long.
        if self.num_hidden_layers > 1 << 16 {
            let (limit, got) = (1 << 16, self.num_hidden_layers);
            return Err(LoadError::Config(format!("num_hidden_layers must be at most {limit}, got {got}")));
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return Err(LoadError::Config(format!(
                "num_attention_heads ({}) must be a multiple of num_key_value_heads ({})",
                self.num_attention_heads, self.num_key_value_heads
            )));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(LoadError::Config(format!("head_dim must be even, got {}", self.head_dim)));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0) {
            return Err(LoadError::Config(format!("rms_norm_eps must be finite, got {}", self.rms_norm_eps)));
        }
        if !(self.rope.theta.is_finite() && self.rope.theta > 0.0) {
            return Err(LoadError::Config(format!("rope_theta must be positive, got {}", self.rope.theta)));
        }
        Ok(())
    }
}
