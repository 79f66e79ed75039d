//! Makes GGUF metadata of a Hugging Face directory.

use std::path::Path;

use nanovllm_gguf::Value;
use nanovllm_model::ModelConfig;
use nanovllm_tokenizer::Tokenizer;

use crate::error::Error;

/// A directory's metadata in GGUF.
pub(crate) struct Exported {
    /// All but `general.file_type`, which depends on what the file is quantised to.
    pub(crate) pairs: Vec<(String, Value)>,
    /// What GGUF has no way to say of the model, a phrase each.
    pub(crate) lost: Vec<String>,
}

/// The metadata of the model in `dir`.
pub(crate) fn from_directory(dir: &Path, config: &ModelConfig) -> Result<Exported, Error> {
    let mut pairs = config.to_gguf()?;
    if let Some(name) = dir.canonicalize().ok().as_deref().and_then(name) {
        pairs.insert(1, ("general.name".to_owned(), Value::String(name)));
    }
    let tokenizer = Tokenizer::from_dir(dir)?.to_gguf(config.base.vocab_size)?;
    pairs.extend(tokenizer.pairs);
    Ok(Exported { pairs, lost: tokenizer.lost })
}

/// The name of the folder, or in the hub's cache (`models--OWNER--NAME/snapshots/COMMIT`) that of the repository.
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
