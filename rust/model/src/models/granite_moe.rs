//! Granite 3 with experts: a Granite in each of whose layers a token goes through few of many MLPs, and in some models through
//! one that all tokens share.

use nanovllm_backend::{Activation, Backend};
use nanovllm_gguf::Value as GgufValue;
use serde_json::Value;

use crate::checkpoint::{FusedModule, StackedExperts};
use crate::config::BaseConfig;
use crate::config::experts::{self, ExpertsConfig};
use crate::config::gguf::{self, Keys};
use crate::config::json::{self, Object};
use crate::config::settings::{Group, Settings, Treatment};
use crate::decoder::{Decoder, SparseMlp};
use crate::error::Result;
use crate::layers::attention::Attention;
use crate::models::family_config::FamilyConfig;
use crate::models::granite::{self, MULTIPLIERS, SCALES};
use crate::models::llama;
use crate::models::tensor_table::TensorTable;
use crate::weights::Weights;

/// What the family adds to every decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    granite: granite::Config,
    experts: ExpertsConfig,
}

const EXPERTS: &[Group] = &[
    (Treatment::Read, &["num_local_experts", "num_experts_per_tok", "shared_intermediate_size"]),
    // Of training.
    (Treatment::Harmless, &["output_router_logits", "router_aux_loss_coef"]),
];

const SHARED: &[Group] = &[(Treatment::Read, &["expert_shared_feed_forward_length"])];

/// The experts of a layer, as published files have them, and as the classes of transformers 5.
const STACKED: &[FusedModule] = &[
    FusedModule { stored: "block_sparse_moe.input_linear", parts: &["gate_proj", "up_proj"] },
    FusedModule { stored: "block_sparse_moe.output_linear", parts: &["down_proj"] },
    FusedModule { stored: "block_sparse_moe.experts.gate_up_proj", parts: &["gate_proj", "up_proj"] },
    FusedModule { stored: "block_sparse_moe.experts.down_proj", parts: &["down_proj"] },
];

/// The other modules, under both names.
const FUSED: &[FusedModule] = &[
    FusedModule { stored: "block_sparse_moe.router.layer", parts: &["mlp.gate"] },
    FusedModule { stored: "block_sparse_moe.router", parts: &["mlp.gate"] },
    FusedModule { stored: "shared_mlp.input_linear", parts: &["mlp.shared.gate_proj", "mlp.shared.up_proj"] },
    FusedModule { stored: "shared_mlp.output_linear", parts: &["mlp.shared.down_proj"] },
];

impl FamilyConfig for Config {
    fn from_json(json: Object<'_>, base: &mut BaseConfig) -> Result<Self> {
        json::check_plain(json)?;
        let experts = ExpertsConfig {
            num_experts: json.usize("num_local_experts")?,
            experts_per_row: json.usize("num_experts_per_tok")?,
            intermediate_size: base.intermediate_size,
            shared_size: json.opt_usize("shared_intermediate_size")?.filter(|&size| size > 0),
            normalized: true,
            bias: false,
        };
        Ok(Self { granite: granite::Config::multiplied(json, true)?, experts: experts.checked()? })
    }

    fn also_called() -> &'static [&'static str] {
        &["GraniteMoeSharedForCausalLM", "granitemoeshared"]
    }

    fn json_defaults(_: Object<'_>) -> Vec<(&'static str, Value)> {
        vec![("num_local_experts", 8.into()), ("num_experts_per_tok", 2.into())]
    }

    fn from_gguf(keys: &Keys<'_>, base: &mut BaseConfig) -> Result<Self> {
        gguf::check_plain_with_experts(keys, base)?;
        Ok(Self { granite: granite::Config::scaled(keys, base)?, experts: ExpertsConfig::from_gguf(keys, base, true)? })
    }

    fn json_settings() -> Settings {
        Settings(&[EXPERTS, MULTIPLIERS, json::COMMON])
    }

    fn gguf_settings() -> Settings {
        Settings(&[experts::GGUF, SHARED, SCALES, gguf::PLAIN])
    }

    fn to_json(&self) -> Vec<(&'static str, Value)> {
        let mut pairs = self.granite.to_json();
        pairs.extend([
            ("num_local_experts", self.experts.num_experts.into()),
            ("num_experts_per_tok", self.experts.experts_per_row.into()),
            ("shared_intermediate_size", self.experts.shared_size.unwrap_or(0).into()),
        ]);
        pairs
    }

    fn to_gguf(&self, base: &BaseConfig, name: &str) -> Result<Vec<(String, GgufValue)>> {
        let mut pairs = self.granite.to_gguf(base, name)?;
        pairs.extend(self.experts.to_gguf(name)?);
        Ok(pairs)
    }

    fn tensor_table(&self) -> TensorTable {
        TensorTable(&[TensorTable::EXPERTS, TensorTable::SHARED_EXPERT, llama::PERMUTED, TensorTable::PRE_NORM])
    }

    fn fused_modules(&self) -> &'static [FusedModule] {
        FUSED
    }

    fn experts(&self) -> Option<&ExpertsConfig> {
        Some(&self.experts)
    }

    fn stacked_experts(&self) -> Option<StackedExperts> {
        Some(StackedExperts { count: self.experts.num_experts, modules: STACKED, in_turns: false })
    }

    fn attention(&self, base: &BaseConfig, layer: usize) -> Attention {
        self.granite.attention(base, layer)
    }

    fn decoder<B: Backend>(
        &self,
        base: &BaseConfig,
        weights: &mut Weights<'_, B>,
        positions: usize,
    ) -> Result<Box<dyn Decoder<B>>> {
        self.granite.stack(base, weights, positions, |weights, prefix| {
            SparseMlp::load(weights, prefix, base, &self.experts, Activation::Silu)
        })
    }
}
