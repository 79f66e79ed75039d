//! What a family of models says of itself.

use nanovllm_backend::{Backend, LayerCache};
use nanovllm_gguf::Value as GgufValue;
use serde_json::Value;

use crate::config::base::BaseConfig;
use crate::config::gguf::Keys;
use crate::config::json::Object;
use crate::config::rope::RopeConfig;
use crate::decoder::contract::Decoder;
use crate::error::Result;
use crate::models::tensor_table::TensorTable;
use crate::weights::Weights;

/// What a family's configuration does.
pub(crate) trait FamilyConfig {
    /// Reads config.json; `base` is what nearly every decoder has, which the family may change and which is checked afterwards.
    /// What the family has no code for it refuses: `check_plain` of [`json`](crate::config::json) knows what is usual.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`](crate::LoadError::Unsupported), and [`LoadError::Config`](crate::LoadError::Config) naming the key.
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
    fn tensor_table(&self) -> TensorTable;

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
    /// What is wrong with a tensor; [`LoadError::Backend`](crate::LoadError::Backend) when the device cannot hold it.
    fn decoder<B: Backend>(
        &self,
        base: &BaseConfig,
        weights: &mut Weights<'_, B>,
        positions: usize,
    ) -> Result<Box<dyn Decoder<B>>>
    where
        Self: Sized;
}
