//! GGUF metadata of a Hugging Face directory.

use std::path::Path;

use nanovllm_gguf::Value;
use nanovllm_model::{ModelConfig, RopeScaling};
use nanovllm_tokenizer::Tokenizer;

use super::hugging_face::architecture;
use crate::Error;

/// Everything but `general.file_type`, which depends on what the file is quantised to.
pub(crate) fn from_directory(dir: &Path, config: &ModelConfig) -> Result<Vec<(String, Value)>, Error> {
    let architecture = architecture(config)?;
    let mut pairs = vec![("general.architecture".to_owned(), Value::String(architecture.to_owned()))];
    if let Some(name) = dir.canonicalize().ok().as_deref().and_then(name) {
        pairs.push(("general.name".to_owned(), Value::String(name)));
    }
    let number = |key, value: usize| match u32::try_from(value) {
        Ok(value) => Ok((format!("{architecture}.{key}"), Value::U32(value))),
        Err(_) => Err(Error::Option(format!("{key} of {value} does not fit in 32 bits"))),
    };
    pairs.extend([
        number("block_count", config.num_hidden_layers)?,
        number("context_length", config.max_position_embeddings)?,
        number("embedding_length", config.hidden_size)?,
        number("feed_forward_length", config.intermediate_size)?,
        number("attention.head_count", config.num_attention_heads)?,
        number("attention.head_count_kv", config.num_key_value_heads)?,
        number("attention.key_length", config.head_dim)?,
        number("attention.value_length", config.head_dim)?,
        number("rope.dimension_count", config.head_dim)?,
        number("vocab_size", config.vocab_size)?,
    ]);
    let float = |key: &str, value: f32| (format!("{architecture}.{key}"), Value::F32(value));
    pairs.push(float("attention.layer_norm_rms_epsilon", config.rms_norm_eps));
    pairs.push(float("rope.freq_base", config.rope.theta as f32));
    let kind = |name: &str| (format!("{architecture}.rope.scaling.type"), Value::String(name.to_owned()));
    match &config.rope.scaling {
        // Llama 3's are a tensor.
        RopeScaling::None | RopeScaling::Llama3 { .. } | RopeScaling::Factors(_) => {}
        RopeScaling::Linear { factor } => pairs.extend([kind("linear"), float("rope.scaling.factor", *factor as f32)]),
        RopeScaling::Yarn { factor, original_max_position, beta_fast, beta_slow, truncate, attention_factor } => {
            if (*beta_fast, *beta_slow, *truncate, *attention_factor) != (32.0, 1.0, true, None) {
                let reason = "YaRN with other than its default parameters cannot be written to GGUF";
                return Err(Error::Option(reason.to_owned()));
            }
            pairs.extend([
                kind("yarn"),
                float("rope.scaling.factor", *factor as f32),
                number("rope.scaling.original_context_length", *original_max_position)?,
            ]);
        }
        _ => return Err(Error::Option("this rotary scaling cannot be written to GGUF".to_owned())),
    }
    pairs.extend(Tokenizer::from_dir(dir)?.to_gguf(config.vocab_size)?);
    Ok(pairs)
}

/// The folder's name; in the hub's cache (`models--OWNER--NAME/snapshots/COMMIT`) the repository's.
fn name(dir: &Path) -> Option<String> {
    let text = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    let parent = dir.parent()?;
    if text(parent).as_deref() == Some("snapshots")
        && let Some(repository) = parent.parent().and_then(text)
        && let Some(name) = repository.strip_prefix("models--")
    {
        return Some(name.rsplit("--").next().unwrap_or(name).to_owned());
    }
    text(dir)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn a_cached_repository_keeps_its_name() {
        let name = |path| super::name(Path::new(path)).unwrap();
        assert_eq!(name("/cache/models--Qwen--Qwen3-0.6B/snapshots/0123abc"), "Qwen3-0.6B");
        assert_eq!(name("/models/tiny"), "tiny");
        assert_eq!(name("/models/snapshots/tiny"), "tiny");
    }
}
