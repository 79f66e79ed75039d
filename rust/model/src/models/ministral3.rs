//! Ministral 3: a Llama whose queries grow beyond the context that it was first trained on. Its GGUF files, and those of
//! Mistral Small from 3.1 on, call themselves mistral3.

use nanovllm_gguf::Value as GgufValue;
use serde_json::{Value, json};

use crate::config::gguf::{self, Keys};
use crate::config::json::{self, Object};
use crate::config::settings::{Group, Settings, Treatment};
use crate::config::{BaseConfig, RopeScaling, Windows};
use crate::error::{LoadError, Result};
use crate::layers::attention::{Attention, Temperature};
use crate::models::family_config::FamilyConfig;
use crate::models::llama;
use crate::models::tensor_table::TensorTable;

/// What a Ministral 3 has beyond every decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// How queries grow with their position; models without YaRN have none.
    temperature: Option<Temperature>,
    /// The window, the same for every layer that has one.
    windows: Windows,
}

const JSON: &[Group] = &[(
    Treatment::Read,
    &["sliding_window", "rope_parameters.llama_4_scaling_beta", "rope_parameters.max_position_embeddings"],
)];

const GGUF: &[Group] = &[(Treatment::Read, &[TEMPERATURE, YARN_LOG_MULTIPLIER])];
/// `llama_4_scaling_beta` of transformers.
const TEMPERATURE: &str = "attention.temperature_scale";
/// `mscale_all_dim` of transformers, by which cosines and sines are divided.
const YARN_LOG_MULTIPLIER: &str = "rope.scaling.yarn_log_multiplier";

impl Config {
    /// `beta` counts the contexts that the model was first trained on, so it says something with YaRN alone.
    fn new(base: &BaseConfig, beta: Option<f64>, window: Option<usize>) -> Result<Self> {
        let temperature = match (beta.filter(|&beta| beta != 0.0), &base.rope.scaling) {
            (None, _) => None,
            (Some(beta), &RopeScaling::Yarn { original_max_position: original, .. }) if beta.is_finite() => {
                if original == 0 {
                    let reason = "original_max_position_embeddings must be at least 1, got 0";
                    return Err(LoadError::Config(reason.to_owned()));
                }
                Some(Temperature { beta, original })
            }
            (Some(beta), _) => {
                let reason = format!("llama_4_scaling_beta of {beta} where the rotary embedding is not scaled by YaRN");
                return Err(LoadError::Unsupported(reason));
            }
        };
        Ok(Self { temperature, windows: Windows::new(base, window, |_| true)? })
    }
}

impl FamilyConfig for Config {
    fn from_json(json: Object<'_>, base: &mut BaseConfig) -> Result<Self> {
        json::check_silu(json)?;
        json::check_whole_heads(json)?;
        (base.qkv_bias, base.o_bias, base.mlp_bias) = (false, false, false);
        let rope = json::rope_object(json)?.map(|(_, rope)| rope);
        let beta = rope.map(|rope| rope.f64("llama_4_scaling_beta")).transpose()?.flatten();
        Self::new(base, beta, json.opt_usize("sliding_window")?)
    }

    fn json_defaults(json: Object<'_>) -> Vec<(&'static str, Value)> {
        let mut defaults = vec![("rms_norm_eps", 1e-5.into()), ("head_dim", 128.into())];
        if !json.has("rope_scaling") && !json.has("rope_theta") {
            let rope = json!({
                "rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16384,
                "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
            });
            defaults.push(("rope_parameters", rope));
        }
        defaults
    }

    fn from_gguf(keys: &Keys<'_>, base: &mut BaseConfig) -> Result<Self> {
        gguf::check_plain(keys, base)?;
        if let Some(all_dim) = keys.f64(YARN_LOG_MULTIPLIER)?.filter(|&m| m != 0.0)
            && let RopeScaling::Yarn { factor, attention_factor, .. } = &mut base.rope.scaling
        {
            let scale = |m: f64| if *factor > 1.0 { 0.1 * m * factor.ln() + 1.0 } else { 1.0 };
            // Read without the multiplier, it is relative to the usual one, which is `scale(1)`.
            *attention_factor = Some(attention_factor.unwrap_or(scale(1.0)) / scale(all_dim));
        }
        Self::new(base, keys.f64(TEMPERATURE)?, None)
    }

    fn json_settings() -> Settings {
        Settings(&[JSON, json::COMMON])
    }

    fn gguf_settings() -> Settings {
        Settings(&[GGUF, gguf::PLAIN])
    }

    fn to_gguf(&self, base: &BaseConfig, name: &str) -> Result<Vec<(String, GgufValue)>> {
        self.windows.check_none_in_gguf(base, name)?;
        let mut base = base.clone();
        let mut own = Vec::new();
        if let RopeScaling::Yarn { factor, attention_factor, .. } = &mut base.rope.scaling
            && let Some(relative) = attention_factor.take()
            && *factor > 1.0
        {
            let all_dim = ((0.1 * factor.ln() + 1.0) / relative - 1.0) / (0.1 * factor.ln());
            own.push((YARN_LOG_MULTIPLIER, all_dim));
        }
        own.extend(self.temperature.map(|temperature| (TEMPERATURE, temperature.beta)));
        let mut pairs = base.to_gguf(name)?;
        pairs.extend(own.into_iter().map(|(key, value)| gguf::float(name, key, value)));
        Ok(pairs)
    }

    fn tensor_table(&self) -> TensorTable {
        llama::TABLE
    }

    fn attention(&self, base: &BaseConfig, layer: usize) -> Attention {
        let (temperature, window) = (self.temperature, self.windows.of(layer));
        Attention { window, temperature, ..Attention::plain(base.heads(), layer) }
    }
}
