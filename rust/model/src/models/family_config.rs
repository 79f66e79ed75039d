//! What a family of models says of itself: the trait that a new family implements.

use nanovllm_backend::{Backend, KvHeads, LayerCache};
use nanovllm_gguf::Value as GgufValue;
use serde_json::Value;

use crate::checkpoint::{FusedModule, StackedExperts};
use crate::config::experts::ExpertsConfig;
use crate::config::gguf::Keys;
use crate::config::json::Object;
use crate::config::settings::Settings;
use crate::config::{BaseConfig, RopeConfig};
use crate::decoder::{Decoder, PreNormLayer, Stack};
use crate::error::Result;
use crate::layers::attention::Attention;
use crate::models::tensor_table::TensorTable;
use crate::weights::Weights;

/// The configuration of a family: what its models have beyond what every decoder has, and how a decoder is made of it.
pub(crate) trait FamilyConfig {
    /// Reads config.json. `base` is what nearly every decoder has, read already: the family may change it, and it is
    /// checked afterwards. The family refuses what it has no code for; `check_plain` of [`json`](crate::config::json)
    /// does so for plain decoders.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`](crate::LoadError::Unsupported), and [`LoadError::Config`](crate::LoadError::Config)
    /// naming the key.
    fn from_json(json: Object<'_>, base: &mut BaseConfig) -> Result<Self>
    where
        Self: Sized;

    /// Other names than the registry's under which config.json may ask for the family.
    fn also_called() -> &'static [&'static str]
    where
        Self: Sized,
    {
        &[]
    }

    /// What transformers takes for settings that the family's config.json may lack, where that is something else than
    /// every decoder's: pairs of a key and its value.
    fn json_defaults(json: Object<'_>) -> Vec<(&'static str, Value)>
    where
        Self: Sized,
    {
        let _ = json;
        Vec::new()
    }

    /// The ways of quantisation that config.json may name whose safetensors can be read.
    fn quant_methods() -> &'static [&'static str]
    where
        Self: Sized,
    {
        &[]
    }

    /// Reads GGUF metadata in the same way.
    ///
    /// # Errors
    /// Those of [`from_json`](Self::from_json).
    fn from_gguf(keys: &Keys<'_>, base: &mut BaseConfig) -> Result<Self>
    where
        Self: Sized;

    /// The settings that the family's config.json may have, and what is done about each.
    fn json_settings() -> Settings
    where
        Self: Sized;

    /// The same of GGUF metadata, whose keys here lack the architecture's name.
    fn gguf_settings() -> Settings
    where
        Self: Sized;

    /// The keys that the family adds to every decoder's config.json, or writes otherwise.
    fn to_json(&self) -> Vec<(&'static str, Value)> {
        Vec::new()
    }

    /// The GGUF metadata of the model; `name` is the family's `general.architecture`, which keys begin with. A family
    /// adds its own to every decoder's, which are the default.
    ///
    /// # Errors
    /// Those of [`BaseConfig::to_gguf`], and [`LoadError::Unsupported`](crate::LoadError::Unsupported) for what GGUF has no
    /// key for.
    fn to_gguf(&self, base: &BaseConfig, name: &str) -> Result<Vec<(String, GgufValue)>> {
        base.to_gguf(name)
    }

    /// How GGUF names the family's tensors and orders their rows.
    fn tensor_table(&self) -> TensorTable;

    /// The modules of a layer that Hugging Face stores as one, where decoders know several. Projections that run as one
    /// need not be among them.
    fn fused_modules(&self) -> &'static [FusedModule] {
        &[]
    }

    /// The experts of a layer, in models that have any.
    fn experts(&self) -> Option<&ExpertsConfig> {
        None
    }

    /// How Hugging Face stacks the experts of a layer, where a family has any.
    fn stacked_experts(&self) -> Option<StackedExperts> {
        None
    }

    /// The kinds of rotary embedding that layers have, [`BaseConfig::rope`] first; each becomes a table, which layers
    /// refer to by number.
    fn ropes<'a>(&'a self, base: &'a BaseConfig) -> Vec<&'a RopeConfig> {
        vec![&base.rope]
    }

    /// How a layer rotates and attends.
    fn attention(&self, base: &BaseConfig, layer: usize) -> Attention {
        Attention::plain(base.heads(), layer)
    }

    /// What each layer keeps in the KV cache, in the layers' order.
    fn cache_layers(&self, base: &BaseConfig) -> Vec<LayerCache> {
        let cache = |layer| {
            let Attention { heads, window, shared_with, .. } = self.attention(base, layer);
            let heads = KvHeads { num_kv_heads: heads.num_kv_heads, head_dim: heads.head_dim };
            match (shared_with, window) {
                (Some(owner), _) => LayerCache::Shared(owner),
                (None, Some(window)) => LayerCache::SlidingWindow { heads, window },
                (None, None) => LayerCache::Full(heads),
            }
        };
        (0..base.num_hidden_layers).map(cache).collect()
    }

    /// Loads the decoder: takes every parameter from `weights` and makes rotary tables for `positions` positions. Most
    /// families' are stacks of pre-norm layers without norms of heads, which is the default.
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
        Self: Sized,
    {
        let decoder = Stack::load(base, weights, &self.ropes(base), positions, |weights, i, prefix| {
            PreNormLayer::load(weights, prefix, base, self.attention(base, i), false)
        })?;
        Ok(Box::new(decoder))
    }
}
