//! Granite 4, dense, from Hugging Face: the class of its hybrid models, in which every layer attends and none has experts.
//! In GGUF it is a Granite.

use nanovllm_backend::Backend;
use nanovllm_gguf::Value as GgufValue;
use serde_json::Value;

use crate::checkpoint::FusedModule;
use crate::config::BaseConfig;
use crate::config::gguf::Keys;
use crate::config::json::{self, Object};
use crate::config::settings::{Group, Literal, Settings, Treatment};
use crate::decoder::Decoder;
use crate::error::{LoadError, Result};
use crate::layers::attention::Attention;
use crate::models::family_config::FamilyConfig;
use crate::models::granite::{self, MULTIPLIERS};
use crate::models::tensor_table::TensorTable;
use crate::weights::Weights;

/// What a dense Granite 4 has beyond every decoder: what a Granite 3 has.
#[derive(Debug, Clone, PartialEq)]
pub struct Config(granite::Config);

const HYBRID: &[Group] = &[
    (Treatment::Read, &["shared_intermediate_size", "position_embedding_type", "layer_types", "layers_block_type"]),
    (Treatment::Only(&[Literal::Number(0.0)]), &["num_local_experts"]),
    (Treatment::Only(&[Literal::Text("rmsnorm")]), &["normalization_function"]),
    (
        Treatment::Harmless,
        &[
            // Of experts, of layers with a state, and of training.
            "num_experts_per_tok",
            "output_router_logits",
            "router_aux_loss_coef",
            "mamba_n_heads",
            "mamba_n_groups",
            "mamba_d_state",
            "mamba_d_head",
            "mamba_d_conv",
            "mamba_expand",
            "mamba_chunk_size",
            "mamba_conv_bias",
            "mamba_proj_bias",
            "time_step_limit",
            "init_method",
        ],
    ),
];

/// The MLP is what models with experts share between tokens.
const FUSED: &[FusedModule] = &[
    FusedModule { stored: "shared_mlp.input_linear", parts: &["mlp.gate_proj", "mlp.up_proj"] },
    FusedModule { stored: "shared_mlp.output_linear", parts: &["mlp.down_proj"] },
];

impl FamilyConfig for Config {
    fn from_json(json: Object<'_>, base: &mut BaseConfig) -> Result<Self> {
        json::check_silu(json)?;
        json::check_whole_heads(json)?;
        base.intermediate_size = json.usize("shared_intermediate_size")?;
        let key = if json.has("layers_block_type") { "layers_block_type" } else { "layer_types" };
        let types = json.list(key)?.ok_or_else(|| {
            LoadError::Unsupported(format!("{key} is missing, so that every layer has a state; only attention is"))
        })?;
        if types.len() != base.num_hidden_layers {
            let (got, expected) = (types.len(), base.num_hidden_layers);
            return Err(LoadError::Config(format!("{key} has {got} entries for {expected} layers")));
        }
        if let Some(other) = types.iter().find(|kind| !["attention", "full_attention"].map(Value::from).contains(kind))
        {
            return Err(LoadError::Unsupported(format!("{key} has {other}; only \"attention\" is supported")));
        }
        let rotates = match json.str("position_embedding_type")? {
            Some("rope") => true,
            None => false,
            Some(other) => {
                let reason = format!("position_embedding_type {other:?}; only \"rope\", or none, is supported");
                return Err(LoadError::Unsupported(reason));
            }
        };
        granite::Config::multiplied(json, rotates).map(Self)
    }

    fn json_defaults(_: Object<'_>) -> Vec<(&'static str, Value)> {
        vec![("shared_intermediate_size", 1024.into()), ("num_local_experts", 8.into())]
    }

    fn from_gguf(keys: &Keys<'_>, base: &mut BaseConfig) -> Result<Self> {
        granite::Config::from_gguf(keys, base).map(Self)
    }

    fn json_settings() -> Settings {
        Settings(&[HYBRID, MULTIPLIERS, json::COMMON])
    }

    fn gguf_settings() -> Settings {
        granite::Config::gguf_settings()
    }

    fn to_json(&self) -> Vec<(&'static str, Value)> {
        self.0.to_json()
    }

    fn to_gguf(&self, base: &BaseConfig, name: &str) -> Result<Vec<(String, GgufValue)>> {
        self.0.to_gguf(base, name)
    }

    fn tensor_table(&self) -> TensorTable {
        self.0.tensor_table()
    }

    fn fused_modules(&self) -> &'static [FusedModule] {
        FUSED
    }

    fn attention(&self, base: &BaseConfig, layer: usize) -> Attention {
        self.0.attention(base, layer)
    }

    fn decoder<B: Backend>(
        &self,
        base: &BaseConfig,
        weights: &mut Weights<'_, B>,
        positions: usize,
    ) -> Result<Box<dyn Decoder<B>>> {
        self.0.decoder(base, weights, positions)
    }
}
