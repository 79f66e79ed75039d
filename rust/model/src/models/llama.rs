//! Llama 2 and 3, SmolLM2 and others of the same structure.

use crate::config::BaseConfig;
use crate::config::gguf::{self, Keys};
use crate::config::json::{self, Object};
use crate::config::settings::Settings;
use crate::error::Result;
use crate::models::family_config::FamilyConfig;
use crate::models::tensor_table::{TensorRule, TensorTable};

/// The family adds nothing to what every decoder has.
#[derive(Debug, Clone, PartialEq)]
pub struct Config;

/// llama.cpp's conversion reorders the rows of q and k for its kernels.
pub(crate) const PERMUTED: &[TensorRule] = &[
    TensorRule::layer("attn_q", "self_attn.q_proj").in_rotary_pairs(),
    TensorRule::layer("attn_k", "self_attn.k_proj").in_rotary_pairs(),
];

/// The tensors of Llama and of the families that llama.cpp converts in its manner.
pub(crate) const TABLE: TensorTable = TensorTable(&[PERMUTED, TensorTable::PRE_NORM]);

impl FamilyConfig for Config {
    fn from_json(json: Object<'_>, _: &mut BaseConfig) -> Result<Self> {
        json::check_plain(json).map(|()| Self)
    }

    fn from_gguf(keys: &Keys<'_>, base: &mut BaseConfig) -> Result<Self> {
        gguf::check_plain(keys, base).map(|()| Self)
    }

    fn json_settings() -> Settings {
        Settings(&[json::COMMON])
    }

    fn gguf_settings() -> Settings {
        Settings(&[gguf::PLAIN])
    }

    fn tensor_table(&self) -> TensorTable {
        TABLE
    }
}
