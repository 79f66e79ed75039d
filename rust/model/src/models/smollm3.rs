//! SmolLM3: a Llama in which every fourth layer rotates neither queries nor keys.

use nanovllm_gguf::Value as GgufValue;
use serde_json::Value;

use crate::config::gguf::{self, Keys};
use crate::config::json::{self, Object};
use crate::config::settings::{Group, Settings, Treatment};
use crate::config::{BaseConfig, Windows};
use crate::error::{LoadError, Result};
use crate::layers::attention::Attention;
use crate::models::family_config::FamilyConfig;
use crate::models::llama;
use crate::models::tensor_table::TensorTable;

/// Each layer whose number, counted from 1, is a multiple of this does not rotate; llama.cpp knows no other number.
const INTERVAL: usize = 4;

/// What a SmolLM3 has beyond every decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Whether each layer rotates queries and keys.
    rotates: Vec<bool>,
    /// The windows of layers that do not rotate, in models that use them.
    windows: Windows,
}

const OWN: &[Group] = &[(
    Treatment::Read,
    &["no_rope_layers", "no_rope_layer_interval", "use_sliding_window", "sliding_window", "layer_types"],
)];

impl FamilyConfig for Config {
    fn from_json(json: Object<'_>, base: &mut BaseConfig) -> Result<Self> {
        json::check_silu(json)?;
        json::check_whole_heads(json)?;
        base.check()?;
        let interval = json.opt_usize("no_rope_layer_interval")?.unwrap_or(INTERVAL);
        let rotates = match json.list("no_rope_layers")? {
            Some(layers) => rotates(layers, base.num_hidden_layers)?,
            None => every(interval, base.num_hidden_layers)?,
        };
        let window = if json.bool("use_sliding_window", false)? { json.opt_usize("sliding_window")? } else { None };
        let windows = Windows::from_json(json, base, window, |layer| !rotates[layer])?;
        Ok(Self { rotates, windows })
    }

    fn json_defaults(_: Object<'_>) -> Vec<(&'static str, Value)> {
        vec![("rope_theta", 2_000_000.0.into()), ("tie_word_embeddings", true.into())]
    }

    fn from_gguf(keys: &Keys<'_>, base: &mut BaseConfig) -> Result<Self> {
        gguf::check_plain(keys, base)?;
        Ok(Self { rotates: every(INTERVAL, base.num_hidden_layers)?, windows: Windows::new(base, None, |_| false)? })
    }

    fn json_settings() -> Settings {
        Settings(&[OWN, json::COMMON])
    }

    fn gguf_settings() -> Settings {
        Settings(&[gguf::PLAIN])
    }

    fn to_json(&self) -> Vec<(&'static str, Value)> {
        vec![("no_rope_layers", self.rotates.iter().map(|&rotates| i32::from(rotates)).collect())]
    }

    fn to_gguf(&self, base: &BaseConfig, name: &str) -> Result<Vec<(String, GgufValue)>> {
        if self.rotates != every(INTERVAL, base.num_hidden_layers)? {
            let reason = "no_rope_layers: GGUF has no key for layers other than every fourth";
            return Err(LoadError::Unsupported(reason.to_owned()));
        }
        self.windows.check_none_in_gguf(base, name)?;
        base.to_gguf(name)
    }

    fn tensor_table(&self) -> TensorTable {
        llama::TABLE
    }

    fn attention(&self, base: &BaseConfig, layer: usize) -> Attention {
        let rope = self.rotates[layer].then_some(0);
        Attention { rope, window: self.windows.of(layer), ..Attention::plain(base.heads(), layer) }
    }
}

/// All `layers` rotate but those whose number, counted from 1, is a multiple of `interval`.
fn every(interval: usize, layers: usize) -> Result<Vec<bool>> {
    if interval == 0 {
        return Err(LoadError::Config("no_rope_layer_interval must be at least 1, got 0".to_owned()));
    }
    Ok((1..=layers).map(|layer| !layer.is_multiple_of(interval)).collect())
}

/// Reads `no_rope_layers`, which says 1 of layers that rotate and may go on beyond the last one.
fn rotates(layers: &[Value], num_layers: usize) -> Result<Vec<bool>> {
    if layers.len() < num_layers {
        let got = layers.len();
        return Err(LoadError::Config(format!("no_rope_layers has {got} entries for {num_layers} layers")));
    }
    let read = |value: &Value| match value.as_u64() {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        _ => Err(LoadError::Config(format!("no_rope_layers must be a list of 0 and 1, got {value}"))),
    };
    layers[..num_layers].iter().map(read).collect()
}
