//! Qwen3 with experts: a Qwen3 in most or all of whose layers each token goes through few of many MLPs.

use nanovllm_backend::{Activation, Backend};
use nanovllm_gguf::Value as GgufValue;
use serde_json::Value;

use crate::checkpoint::{FusedModule, StackedExperts};
use crate::config::BaseConfig;
use crate::config::experts::{self, ExpertsConfig};
use crate::config::gguf::{self, Keys};
use crate::config::json::{self, Object};
use crate::config::settings::{Group, Literal, Settings, Treatment};
use crate::decoder::{Decoder, GatedMlp, Mlp, PreNormLayer, SparseMlp, Stack};
use crate::error::{LoadError, Result};
use crate::models::family_config::FamilyConfig;
use crate::models::tensor_table::TensorTable;
use crate::weights::Weights;

/// What the family adds to every decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    experts: ExpertsConfig,
    /// The layers that have one MLP for all tokens.
    dense_layers: Vec<usize>,
}

const EXPERTS: &[Group] = &[
    (
        Treatment::Read,
        &[
            "num_experts",
            "num_local_experts",
            "num_experts_per_tok",
            "moe_intermediate_size",
            "norm_topk_prob",
            "decoder_sparse_step",
            "mlp_only_layers",
        ],
    ),
    // What it does not have, and what it has, in files that say so.
    (Treatment::Only(&[Literal::Bool(false)]), &["qkv_bias"]),
    (Treatment::Only(&[Literal::Number(0.0)]), &["shared_expert_intermediate_size"]),
    (Treatment::Only(&[Literal::Bool(true)]), &["use_qk_norm"]),
    (
        Treatment::Harmless,
        &[
            // Of training.
            "output_router_logits",
            "router_aux_loss_coef",
            // They count where `use_sliding_window` is true, which is refused.
            "sliding_window",
            "max_window_layers",
        ],
    ),
];

/// The experts of a layer, as files of transformers 5 may stack them.
const STACKED: &[FusedModule] = &[
    FusedModule { stored: "mlp.experts.gate_up_proj", parts: &["gate_proj", "up_proj"] },
    FusedModule { stored: "mlp.experts.down_proj", parts: &["down_proj"] },
];

impl FamilyConfig for Config {
    fn from_json(json: Object<'_>, base: &mut BaseConfig) -> Result<Self> {
        json::check_plain(json)?;
        let experts = ExpertsConfig {
            // What transformers 5 writes, and what published files have.
            num_experts: match json.opt_usize("num_local_experts")? {
                Some(count) => count,
                None => json.usize("num_experts")?,
            },
            experts_per_row: json.usize("num_experts_per_tok")?,
            intermediate_size: json.usize("moe_intermediate_size")?,
            shared_size: None,
            normalized: json.bool("norm_topk_prob", false)?,
            bias: false,
        };
        let step = json.usize("decoder_sparse_step")?;
        if step == 0 {
            return Err(LoadError::Config("decoder_sparse_step must be at least 1, got 0".to_owned()));
        }
        base.check()?; // there are not more layers than a list may have
        let mut dense_layers: Vec<usize> =
            (0..base.num_hidden_layers).filter(|i| !(i + 1).is_multiple_of(step)).collect();
        for layer in json.list("mlp_only_layers")?.unwrap_or_default() {
            let number = layer.as_u64().and_then(|layer| usize::try_from(layer).ok());
            let number =
                number.ok_or_else(|| LoadError::Config(format!("mlp_only_layers has {layer}, which is no layer")))?;
            if number < base.num_hidden_layers && !dense_layers.contains(&number) {
                dense_layers.push(number);
            }
        }
        dense_layers.sort_unstable();
        Ok(Self { experts: experts.checked()?, dense_layers })
    }

    fn json_defaults(_: Object<'_>) -> Vec<(&'static str, Value)> {
        vec![
            ("num_experts", 128.into()),
            ("num_experts_per_tok", 8.into()),
            ("moe_intermediate_size", 768.into()),
            ("decoder_sparse_step", 1.into()),
        ]
    }

    fn from_gguf(keys: &Keys<'_>, base: &mut BaseConfig) -> Result<Self> {
        gguf::check_plain_with_experts(keys, base)?;
        // llama.cpp makes the weights of a token's experts add up to 1, whatever the model, and takes experts of no width of their
        // own to share that of an MLP.
        let mut experts = ExpertsConfig { shared_size: None, ..ExpertsConfig::from_gguf(keys, base, true)? };
        if keys.opt("expert_feed_forward_length")?.is_none() {
            experts.intermediate_size = base.intermediate_size / experts.experts_per_row;
        }
        Ok(Self { experts: experts.checked()?, dense_layers: Vec::new() })
    }

    fn json_settings() -> Settings {
        Settings(&[EXPERTS, json::COMMON])
    }

    fn gguf_settings() -> Settings {
        Settings(&[experts::GGUF, gguf::PLAIN])
    }

    fn to_json(&self) -> Vec<(&'static str, Value)> {
        let ExpertsConfig { num_experts, experts_per_row, intermediate_size, normalized, .. } = self.experts;
        vec![
            ("num_experts", num_experts.into()),
            ("num_experts_per_tok", experts_per_row.into()),
            ("moe_intermediate_size", intermediate_size.into()),
            ("norm_topk_prob", normalized.into()),
            ("decoder_sparse_step", 1.into()),
            ("mlp_only_layers", self.dense_layers.clone().into()),
        ]
    }

    fn to_gguf(&self, base: &BaseConfig, name: &str) -> Result<Vec<(String, GgufValue)>> {
        if !self.dense_layers.is_empty() {
            return Err(LoadError::Unsupported("layers without experts: GGUF has no key for them".to_owned()));
        }
        if !self.experts.normalized {
            let reason = "norm_topk_prob of false: readers of GGUF make the weights of experts add up to 1";
            return Err(LoadError::Unsupported(reason.to_owned()));
        }
        let mut pairs = base.to_gguf(name)?;
        pairs.extend(self.experts.to_gguf(name)?);
        Ok(pairs)
    }

    fn tensor_table(&self) -> TensorTable {
        TensorTable(&[TensorTable::EXPERTS, TensorTable::PRE_NORM])
    }

    fn experts(&self) -> Option<&ExpertsConfig> {
        Some(&self.experts)
    }

    fn stacked_experts(&self) -> Option<StackedExperts> {
        Some(StackedExperts { count: self.experts.num_experts, modules: STACKED, in_turns: false })
    }

    fn decoder<B: Backend>(
        &self,
        base: &BaseConfig,
        weights: &mut Weights<'_, B>,
        positions: usize,
    ) -> Result<Box<dyn Decoder<B>>> {
        let decoder = Stack::load(base, weights, &self.ropes(base), positions, |weights, i, prefix| {
            let mlp = |weights: &mut Weights<'_, B>, prefix: &str| {
                if self.dense_layers.contains(&i) {
                    GatedMlp::load(weights, prefix, base).map(Mlp::Dense)
                } else {
                    SparseMlp::load(weights, prefix, base, &self.experts, Activation::Silu).map(Mlp::Sparse)
                }
            };
            PreNormLayer::load_with(weights, prefix, base, self.attention(base, i), true, mlp)
        })?;
        Ok(Box::new(decoder))
    }
}
