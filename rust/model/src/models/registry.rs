//! The families of models there is code for: a row each.
//!
//! A family is a file beside this one. It says what its configuration holds beyond what every decoder has, how its
//! tensors are named and ordered in GGUF, and how its decoder is put together from the shared layers. Nothing else that
//! loads or computes names a family.

use nanovllm_backend::Backend;
use serde_json::Value;

use crate::config::BaseConfig;
use crate::config::gguf::Keys;
use crate::config::json::Object;
use crate::config::settings::Settings;
use crate::decoder::Decoder;
use crate::error::{LoadError, Result};
use crate::models::family_config::FamilyConfig;
use crate::models::{
    gemma3, gemma4, gpt_oss, granite, granite_moe, granite4, llama, ministral3, mistral, phi3, qwen2, qwen3, qwen3_moe,
    smollm3,
};
use crate::weights::Weights;

// A row says: the family's name for logs, the type of its configuration, its class and type in config.json, and its
// `general.architecture` in GGUF. Where two have that in common, a GGUF file is of the first.
families! {
    Gemma3(gemma3::Config), "Gemma3ForCausalLM", "gemma3_text", "gemma3";
    Gemma4(gemma4::Config), "Gemma4ForCausalLM", "gemma4_text", "gemma4";
    GptOss(gpt_oss::Config), "GptOssForCausalLM", "gpt_oss", "gpt-oss";
    Granite(granite::Config), "GraniteForCausalLM", "granite", "granite";
    Granite4(granite4::Config), "GraniteMoeHybridForCausalLM", "granitemoehybrid", "granite";
    GraniteMoe(granite_moe::Config), "GraniteMoeForCausalLM", "granitemoe", "granitemoe";
    Llama(llama::Config), "LlamaForCausalLM", "llama", "llama";
    Ministral3(ministral3::Config), "Ministral3ForCausalLM", "ministral3", "mistral3";
    Mistral(mistral::Config), "MistralForCausalLM", "mistral", "llama";
    Phi3(phi3::Config), "Phi3ForCausalLM", "phi3", "phi3";
    Qwen2(qwen2::Config), "Qwen2ForCausalLM", "qwen2", "qwen2";
    Qwen3(qwen3::Config), "Qwen3ForCausalLM", "qwen3", "qwen3";
    Qwen3Moe(qwen3_moe::Config), "Qwen3MoeForCausalLM", "qwen3_moe", "qwen3moe";
    SmolLm3(smollm3::Config), "SmolLM3ForCausalLM", "smollm3", "smollm3";
}

/// What config.json calls a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HuggingFaceName {
    /// The model's class, in `architectures`.
    pub class: &'static str,
    /// The model's type, in `model_type`.
    pub model_type: &'static str,
}

/// What there is to know of a family before a model of it is loaded.
pub struct FamilyRow {
    /// The family's name, for logs.
    pub name: &'static str,
    /// What config.json calls it.
    pub hugging_face: HuggingFaceName,
    /// What GGUF's `general.architecture` calls it.
    pub gguf: &'static str,
    /// [`FamilyConfig::also_called`] of the family.
    pub(crate) also_called: fn() -> &'static [&'static str],
    /// [`FamilyConfig::json_defaults`] of the family.
    pub(crate) json_defaults: fn(Object<'_>) -> Vec<(&'static str, Value)>,
    /// [`FamilyConfig::quant_methods`] of the family.
    pub(crate) quant_methods: fn() -> &'static [&'static str],
    /// [`FamilyConfig::json_settings`] of the family.
    pub(crate) json_settings: fn() -> Settings,
    /// [`FamilyConfig::gguf_settings`] of the family.
    pub(crate) gguf_settings: fn() -> Settings,
    /// [`FamilyConfig::from_json`] of the family.
    pub(crate) from_json: fn(Object<'_>, &mut BaseConfig) -> Result<Family>,
    /// [`FamilyConfig::from_gguf`] of the family.
    pub(crate) from_gguf: fn(&Keys<'_>, &mut BaseConfig) -> Result<Family>,
}

/// The row of the class or type that config.json names.
pub(crate) fn by_hugging_face_name(name: &str) -> Result<&'static FamilyRow> {
    find(name, |row| {
        [row.hugging_face.class, row.hugging_face.model_type].contains(&name) || (row.also_called)().contains(&name)
    })
}

/// The first row of GGUF's `general.architecture`.
pub(crate) fn by_gguf_name(name: &str) -> Result<&'static FamilyRow> {
    find(name, |row| row.gguf == name)
}

fn find(name: &str, is_it: impl Fn(&FamilyRow) -> bool) -> Result<&'static FamilyRow> {
    FAMILIES.iter().copied().find(|row| is_it(row)).ok_or_else(|| {
        let listed =
            |name: fn(&FamilyRow) -> &'static str| FAMILIES.iter().copied().map(name).collect::<Vec<_>>().join(", ");
        let supported = format!("{} (GGUF: {})", listed(|row| row.hugging_face.class), listed(|row| row.gguf));
        LoadError::UnsupportedArchitecture { name: name.to_owned(), supported }
    })
}
