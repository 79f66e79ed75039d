//! The families of models there is code for: a row each.
//!
//! A family is a file beside this one. It says what its configuration holds beyond what every decoder has, how its tensors are
//! called and lie in GGUF, and how its decoder is put together from the shared layers. Nothing else that loads or computes
//! names a family.

use nanovllm_backend::{Backend, LayerCache};
use nanovllm_gguf::Value as GgufValue;
use serde_json::Value;

use super::{llama, qwen3};
use crate::checkpoint::TensorTable;
use crate::config::gguf::Keys;
use crate::config::json::Object;
use crate::config::{BaseConfig, RopeConfig};
use crate::decoder::Decoder;
use crate::error::{LoadError, Result};
use crate::weights::Weights;

// Name for logs, its configuration, class and type in config.json, `general.architecture` in GGUF.
families! {
    Llama(llama::Config), "LlamaForCausalLM", "llama", "llama";
    Qwen3(qwen3::Config), "Qwen3ForCausalLM", "qwen3", "qwen3";
}

/// What a family's configuration does.
pub(crate) trait FamilyConfig {
    /// Reads config.json; `base` is what nearly every decoder has, which the family may change and which is checked afterwards.
    /// What the family has no code for it refuses: `check_plain` of [`json`](crate::config::json) knows what is usual.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`], and [`LoadError::Config`] naming the key.
    fn from_json(json: Object<'_>, base: &mut BaseConfig) -> Result<Self>
    where
        Self: Sized;

    /// Reads GGUF metadata, as [`from_json`](Self::from_json).
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    fn from_gguf(keys: &Keys<'_>, base: &mut BaseConfig) -> Result<Self>
    where
        Self: Sized;

    /// The keys of config.json that the family adds to every decoder's.
    fn to_json(&self) -> Vec<(&'static str, Value)> {
        Vec::new()
    }

    /// The GGUF metadata that the family adds to every decoder's; `name` is `general.architecture`, which keys begin with.
    fn to_gguf(&self, name: &str) -> Vec<(String, GgufValue)> {
        let _ = name;
        Vec::new()
    }

    /// How its tensors are called and lie in GGUF.
    fn tensors(&self) -> TensorTable;

    /// Its kinds of rotary embedding, the one that most layers have first.
    fn ropes<'a>(&'a self, base: &'a BaseConfig) -> Vec<&'a RopeConfig> {
        vec![&base.rope]
    }

    /// What its layers keep of the tokens they have seen, in their order.
    fn cache_layers(&self, base: &BaseConfig) -> Vec<LayerCache> {
        vec![LayerCache::Full(base.kv_heads()); base.num_hidden_layers]
    }

    /// Takes every parameter from `weights`; rotary tables reach over `positions`.
    ///
    /// # Errors
    /// What is wrong with a tensor; [`LoadError::Backend`] when the device cannot hold it.
    fn decoder<B: Backend>(
        &self,
        base: &BaseConfig,
        weights: &mut Weights<'_, B>,
        positions: usize,
    ) -> Result<Box<dyn Decoder<B>>>
    where
        Self: Sized;
}

/// What config.json calls a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HuggingFaceName {
    /// In `architectures`.
    pub class: &'static str,
    /// As `model_type`.
    pub model_type: &'static str,
}

/// A family's row.
pub struct Row {
    /// The family's name, for logs.
    pub name: &'static str,
    /// What config.json calls it.
    pub hugging_face: HuggingFaceName,
    /// What GGUF's `general.architecture` calls it.
    pub gguf: &'static str,
    pub(crate) from_json: fn(Object<'_>, &mut BaseConfig) -> Result<Family>,
    pub(crate) from_gguf: fn(&Keys<'_>, &mut BaseConfig) -> Result<Family>,
}

/// The row of the class or type that config.json names.
pub(crate) fn by_hugging_face_name(name: &str) -> Result<&'static Row> {
    find(name, |row| [row.hugging_face.class, row.hugging_face.model_type].contains(&name))
}

/// The row of GGUF's `general.architecture`.
pub(crate) fn by_gguf_name(name: &str) -> Result<&'static Row> {
    find(name, |row| row.gguf == name)
}

fn find(name: &str, is_it: impl Fn(&Row) -> bool) -> Result<&'static Row> {
    ROWS.iter().copied().find(|row| is_it(row)).ok_or_else(|| {
        let listed = |name: fn(&Row) -> &'static str| ROWS.iter().copied().map(name).collect::<Vec<_>>().join(", ");
        let supported = format!("{} (GGUF: {})", listed(|row| row.hugging_face.class), listed(|row| row.gguf));
        LoadError::UnsupportedArchitecture { name: name.to_owned(), supported }
    })
}
