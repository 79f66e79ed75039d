//! Phi-3 and Phi-4-mini: a Llama whose projections are stored fused, which may rotate a part of its heads alone, in one of
//! two ways that the longest sequence decides between.

use nanovllm_gguf::Value as GgufValue;
use serde_json::Value;

use crate::config::gguf::{self, Keys};
use crate::config::json::{self, Object};
use crate::config::settings::{Group, Literal, Settings, Treatment};
use crate::config::{BaseConfig, Windows};
use crate::error::Result;
use crate::layers::attention::Attention;
use crate::models::family_config::FamilyConfig;
use crate::models::tensor_table::{TensorRule, TensorTable};

/// What a Phi-3 has beyond every decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The window, the same for every layer if there is one.
    windows: Windows,
}

const JSON: &[Group] = &[
    (Treatment::Read, &["sliding_window", "original_max_position_embeddings"]),
    // Of training.
    (Treatment::Harmless, &["resid_pdrop", "embd_pdrop"]),
    (Treatment::Only(&[Literal::Bool(false)]), &["lm_head_bias"]),
    // Of the authors' own code: every layer attends to all, and positions are not interpolated.
    (Treatment::Only(&[Literal::Number(1.0)]), &["full_attn_mod", "interpolate_factor"]),
];

const WINDOW: &str = "attention.sliding_window";
const GGUF: &[Group] = &[(Treatment::Read, &[WINDOW])];

const FUSED: &[TensorRule] =
    &[TensorRule::layer("attn_qkv", "self_attn.qkv_proj"), TensorRule::layer("ffn_up", "mlp.gate_up_proj")];

impl FamilyConfig for Config {
    fn from_json(json: Object<'_>, base: &mut BaseConfig) -> Result<Self> {
        json::check_silu(json)?;
        base.check()?; // a width of heads says something only where there are heads
        base.rope.dims = json::rotated_dims(json, base.head_dim)?;
        (base.qkv_bias, base.o_bias, base.mlp_bias) = (false, false, false);
        Ok(Self { windows: Windows::new(base, json.opt_usize("sliding_window")?, |_| true)? })
    }

    fn json_defaults(_: Object<'_>) -> Vec<(&'static str, Value)> {
        vec![
            ("rms_norm_eps", 1e-5.into()),
            ("max_position_embeddings", 4096.into()),
            ("original_max_position_embeddings", 4096.into()),
        ]
    }

    fn from_gguf(keys: &Keys<'_>, base: &mut BaseConfig) -> Result<Self> {
        gguf::check(keys, base)?;
        base.rope.dims = keys.rotated_dims(base.head_dim)?;
        // Zero stands for none.
        Ok(Self { windows: Windows::new(base, keys.opt(WINDOW)?.filter(|&window| window > 0), |_| true)? })
    }

    fn json_settings() -> Settings {
        Settings(&[JSON, json::COMMON])
    }

    fn gguf_settings() -> Settings {
        Settings(&[GGUF, gguf::PLAIN])
    }

    fn to_gguf(&self, base: &BaseConfig, name: &str) -> Result<Vec<(String, GgufValue)>> {
        let mut pairs = base.to_gguf(name)?;
        pairs.push(gguf::number(name, WINDOW, self.windows.of(0).unwrap_or(0))?);
        Ok(pairs)
    }

    fn tensor_table(&self) -> TensorTable {
        TensorTable(&[FUSED, TensorTable::PRE_NORM])
    }

    fn attention(&self, base: &BaseConfig, layer: usize) -> Attention {
        Attention { window: self.windows.of(layer), ..Attention::plain(base.heads(), layer) }
    }
}
