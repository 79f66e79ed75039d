//! Qwen3, dense: query and key heads are normed.
//!
//! nano-vLLM's classes are the shared parts of a decoder under its names.

use nanovllm_backend::Backend;

use crate::config::BaseConfig;
use crate::config::gguf::{self, Keys};
use crate::config::json::{self, Object};
use crate::config::settings::{Group, Settings, Treatment};
pub use crate::decoder::AttentionNorms;
use crate::decoder::{Decoder, GatedMlp, PreNormLayer, SelfAttention, Stack, Transformer};
use crate::error::Result;
use crate::models::family_config::FamilyConfig;
use crate::models::tensor_table::TensorTable;
use crate::weights::Weights;

/// nano-vLLM's `Qwen3Attention`.
pub type Qwen3Attention<B> = SelfAttention<B>;
/// nano-vLLM's `Qwen3MLP`.
pub type Qwen3Mlp<B> = GatedMlp<B>;
/// nano-vLLM's `Qwen3DecoderLayer`.
pub type Qwen3DecoderLayer<B> = PreNormLayer<B>;
/// nano-vLLM's `Qwen3Model`.
pub type Qwen3Model<B> = Transformer<B>;

/// The family adds nothing to what every decoder has.
#[derive(Debug, Clone, PartialEq)]
pub struct Config;

/// What config.json says of sliding windows, beside what every model's says.
const WINDOWS: &[Group] = &[
    // They count where `use_sliding_window` is true, which is refused.
    (Treatment::Harmless, &["sliding_window", "max_window_layers"]),
];

impl FamilyConfig for Config {
    fn from_json(json: Object<'_>, _: &mut BaseConfig) -> Result<Self> {
        json::check_plain(json).map(|()| Self)
    }

    fn from_gguf(keys: &Keys<'_>, base: &mut BaseConfig) -> Result<Self> {
        gguf::check_plain(keys, base).map(|()| Self)
    }

    fn json_settings() -> Settings {
        Settings(&[json::COMMON, WINDOWS])
    }

    fn gguf_settings() -> Settings {
        Settings(&[gguf::PLAIN])
    }

    fn tensor_table(&self) -> TensorTable {
        TensorTable(&[TensorTable::PRE_NORM])
    }

    fn decoder<B: Backend>(
        &self,
        base: &BaseConfig,
        weights: &mut Weights<'_, B>,
        positions: usize,
    ) -> Result<Box<dyn Decoder<B>>> {
        let decoder = Stack::load(base, weights, &self.ropes(base), positions, |weights, i, prefix| {
            PreNormLayer::load(weights, prefix, base, self.attention(base, i), true)
        })?;
        Ok(Box::new(decoder))
    }
}
