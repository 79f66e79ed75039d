//! What the unit tests of this crate share.

use crate::config::{BaseConfig, RopeConfig, RopeScaling};

/// The hyperparameters of a small decoder.
pub(crate) fn base_config() -> BaseConfig {
    BaseConfig {
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        vocab_size: 50,
        max_position_embeddings: 64,
        rms_norm_eps: 1e-6,
        rope: RopeConfig { theta: 10000.0, scaling: RopeScaling::None, dims: None },
        tie_word_embeddings: true,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
    }
}
