//! The target for hyperparameters, from the metadata where the bytes are a GGUF file and else from config.json.

use nanovllm_gguf::GgufFile;
use nanovllm_model::{LoadError, ModelConfig};

/// The widest heads for which frequencies are worked out. A model with wider ones would be refused before, because its
/// tensors have other sizes.
const HEAD_DIM: usize = 4096;

/// Reads the configuration and works out its rotary frequencies.
///
/// # Errors
/// What is wrong with the configuration.
pub fn run(data: &[u8]) -> Result<(), LoadError> {
    let config = if data.starts_with(b"GGUF") {
        ModelConfig::from_gguf(&GgufFile::from_bytes(data.to_vec())?)?
    } else {
        ModelConfig::from_json(serde_json::from_slice(data).map_err(|error| LoadError::Config(error.to_string()))?)?
    };
    let base = &config.base;
    assert_eq!(base.num_attention_heads % base.num_key_value_heads, 0);
    assert!(base.max_position_embeddings > 0 && base.vocab_size > 0);
    if base.head_dim <= HEAD_DIM {
        for rope in config.ropes() {
            let (frequencies, scale) = rope.inverse_frequencies(base.head_dim, base.max_position_embeddings)?;
            assert_eq!(frequencies.len(), rope.width(base.head_dim) / 2);
            assert!(scale.is_finite() && frequencies.iter().all(|f| f.is_finite()));
        }
    }
    Ok(())
}
