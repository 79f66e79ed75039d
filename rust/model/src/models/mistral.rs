//! Mistral: a Llama whose layers may all slide. Its GGUF files call themselves llama.

use nanovllm_gguf::Value as GgufValue;

use crate::config::gguf::{self, Keys};
use crate::config::json::{self, Object};
use crate::config::settings::{Group, Settings, Treatment};
use crate::config::{BaseConfig, Windows};
use crate::error::Result;
use crate::layers::attention::Attention;
use crate::models::family_config::FamilyConfig;
use crate::models::llama;
use crate::models::tensor_table::TensorTable;

/// What a Mistral has beyond every decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The window, the same for every layer that has one.
    windows: Windows,
}

const WINDOWS: &[Group] = &[(Treatment::Read, &["sliding_window"])];

impl FamilyConfig for Config {
    fn from_json(json: Object<'_>, base: &mut BaseConfig) -> Result<Self> {
        json::check_silu(json)?;
        json::check_whole_heads(json)?;
        (base.qkv_bias, base.o_bias, base.mlp_bias) = (false, false, false);
        // Null stands for none, and nothing for the first Mistral's.
        let window = if json.has("sliding_window") { json.opt_usize("sliding_window")? } else { Some(4096) };
        Ok(Self { windows: Windows::new(base, window, |_| true)? })
    }

    fn from_gguf(keys: &Keys<'_>, base: &mut BaseConfig) -> Result<Self> {
        gguf::check_plain(keys, base)?;
        Ok(Self { windows: Windows::new(base, None, |_| false)? })
    }

    fn json_settings() -> Settings {
        Settings(&[WINDOWS, json::COMMON])
    }

    fn gguf_settings() -> Settings {
        Settings(&[gguf::PLAIN])
    }

    fn to_gguf(&self, base: &BaseConfig, name: &str) -> Result<Vec<(String, GgufValue)>> {
        self.windows.check_none_in_gguf(base, name)?;
        base.to_gguf(name)
    }

    fn tensor_table(&self) -> TensorTable {
        llama::TABLE
    }

    fn attention(&self, base: &BaseConfig, layer: usize) -> Attention {
        Attention { window: self.windows.of(layer), ..Attention::plain(base.heads(), layer) }
    }
}
