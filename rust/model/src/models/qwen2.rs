//! Qwen2 and Qwen2.5: queries, keys and values have a bias, of which config.json says nothing.

use nanovllm_gguf::Value as GgufValue;
use serde_json::Value;

use crate::config::gguf::{self, Keys};
use crate::config::json::{self, Object};
use crate::config::settings::{Group, Settings, Treatment};
use crate::config::{BaseConfig, Windows};
use crate::error::Result;
use crate::layers::attention::Attention;
use crate::models::family_config::FamilyConfig;
use crate::models::tensor_table::TensorTable;

/// What a Qwen2 has beyond every decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The windows of the upper layers, in the few models that use them.
    windows: Windows,
}

const WINDOWS: &[Group] =
    &[(Treatment::Read, &["use_sliding_window", "sliding_window", "max_window_layers", "layer_types"])];

impl FamilyConfig for Config {
    fn from_json(json: Object<'_>, base: &mut BaseConfig) -> Result<Self> {
        json::check_silu(json)?;
        json::check_whole_heads(json)?;
        (base.qkv_bias, base.o_bias, base.mlp_bias) = (true, false, false);
        let use_window = json.bool("use_sliding_window", false)?;
        let window = json.opt_usize("sliding_window")?.filter(|_| use_window);
        let first = json.opt_usize("max_window_layers")?.unwrap_or(28);
        Ok(Self { windows: Windows::from_json(json, base, window, |layer| layer >= first)? })
    }

    fn json_defaults(_: Object<'_>) -> Vec<(&'static str, Value)> {
        vec![("sliding_window", 4096.into())]
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
        TensorTable(&[TensorTable::PRE_NORM])
    }

    fn attention(&self, base: &BaseConfig, layer: usize) -> Attention {
        Attention { window: self.windows.of(layer), ..Attention::plain(base.heads(), layer) }
    }
}
