//! gpt-oss: experts with biases in every layer, windows in every other, and a sink for each head.

use nanovllm_backend::{Activation, Backend};
use nanovllm_gguf::Value as GgufValue;
use serde_json::Value;

use crate::checkpoint::{FusedModule, StackedExperts};
use crate::config::experts::{self, ExpertsConfig};
use crate::config::gguf::{self, Keys};
use crate::config::json::{self, Object};
use crate::config::settings::{Group, Literal, Settings, Treatment};
use crate::config::{BaseConfig, RopeConfig, RopeScaling, Windows};
use crate::decoder::{Decoder, PreNormLayer, SparseMlp, Stack};
use crate::error::{LoadError, Result};
use crate::layers::attention::Attention;
use crate::models::family_config::FamilyConfig;
use crate::models::tensor_table::{TensorRule, TensorTable};
use crate::weights::Weights;

/// One layer of so many sees everything, where nothing else is said.
const PATTERN: usize = 2;

/// What the family adds to every decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    windows: Windows,
    experts: ExpertsConfig,
}

const JSON: &[Group] = &[
    (Treatment::Read, &["num_local_experts", "num_experts", "num_experts_per_tok", "sliding_window", "layer_types"]),
    // What its activation is made of.
    (Treatment::Only(&[Literal::Number(7.0)]), &["swiglu_limit"]),
    (Treatment::Only(&[Literal::Number(1.702)]), &["swiglu_alpha"]),
    (
        Treatment::Harmless,
        &[
            // Of training.
            "output_router_logits",
            "router_aux_loss_coef",
            // Other names of what is read, which transformers does not read.
            "experts_per_token",
            "initial_context_length",
        ],
    ),
];

const GGUF: &[Group] = &[(
    Treatment::Read,
    &[
        "attention.sliding_window",
        "attention.sliding_window_pattern",
        THETA_IN_WINDOWS,
        "rope.dimension_count_swa",
        "attention.key_length_swa",
        "attention.value_length_swa",
    ],
)];
const THETA_IN_WINDOWS: &str = "rope.freq_base_swa";

const TENSORS: &[TensorRule] = &[
    TensorRule::layer("post_attention_norm", "post_attention_layernorm"),
    TensorRule::layer("attn_sinks", "self_attn.sinks").bare(),
];

const FUSED: &[FusedModule] = &[FusedModule { stored: "mlp.router", parts: &["mlp.gate"] }];

/// The experts of a layer, in blocks of MXFP4 as published, or dense.
const STACKED: &[FusedModule] = &[
    FusedModule { stored: "mlp.experts.gate_up_proj", parts: &["gate_proj", "up_proj"] },
    FusedModule { stored: "mlp.experts.down_proj", parts: &["down_proj"] },
];

impl FamilyConfig for Config {
    fn from_json(json: Object<'_>, base: &mut BaseConfig) -> Result<Self> {
        json::check_silu(json)?;
        json::check_whole_heads(json)?;
        if json::rope_object(json)?.is_none() {
            base.rope.scaling = RopeScaling::Yarn {
                factor: 32.0,
                original_max_position: 4096,
                beta_fast: 32.0,
                beta_slow: 1.0,
                truncate: false,
                attention_factor: None,
            };
        }
        let num_experts = json.usize("num_local_experts")?;
        if let Some(other) = json.opt_usize("num_experts")?.filter(|&other| other != num_experts) {
            let reason = format!("num_local_experts is {num_experts}, but num_experts is {other}");
            return Err(LoadError::Config(reason));
        }
        let experts = ExpertsConfig {
            num_experts,
            experts_per_row: json.usize("num_experts_per_tok")?,
            intermediate_size: base.intermediate_size,
            shared_size: None,
            normalized: true,
            bias: true,
        };
        let windows = Windows::from_json(json, base, json.opt_usize("sliding_window")?, Windows::by_pattern(PATTERN))?;
        Ok(Self { windows, experts: experts.checked()? })
    }

    fn json_defaults(json: Object<'_>) -> Vec<(&'static str, Value)> {
        vec![
            ("vocab_size", 201_088.into()),
            ("hidden_size", 2880.into()),
            ("intermediate_size", 2880.into()),
            ("num_hidden_layers", 36.into()),
            ("num_attention_heads", 64.into()),
            ("num_key_value_heads", 8.into()),
            ("head_dim", 64.into()),
            ("max_position_embeddings", 131_072.into()),
            ("rms_norm_eps", 1e-5.into()),
            ("rope_theta", 150_000.0.into()),
            ("attention_bias", true.into()),
            // What transformers 5 writes, or its other name.
            ("num_local_experts", json.get("num_experts").cloned().unwrap_or(128.into())),
            ("num_experts_per_tok", 4.into()),
            ("sliding_window", 128.into()),
        ]
    }

    fn quant_methods() -> &'static [&'static str] {
        &["mxfp4"]
    }

    fn from_gguf(keys: &Keys<'_>, base: &mut BaseConfig) -> Result<Self> {
        gguf::check_plain_with_experts(keys, base)?;
        keys.check_equal_windows(base.head_dim)?;
        if let Some(theta) = keys.f64(THETA_IN_WINDOWS)?.filter(|&theta| theta != base.rope.theta) {
            let what = format_args!("{theta} beside a base of {}; they must be equal", base.rope.theta);
            return Err(keys.unsupported(THETA_IN_WINDOWS, what));
        }
        keys.usize("attention.sliding_window")?; // without one a model of this family is not whole
        // There is no key for it: the models of this family have it so.
        if let RopeScaling::Yarn { truncate, .. } = &mut base.rope.scaling {
            *truncate = false;
        }
        let experts = ExpertsConfig { shared_size: None, bias: true, ..ExpertsConfig::from_gguf(keys, base, true)? };
        Ok(Self { windows: Windows::from_gguf(keys, base, PATTERN)?, experts })
    }

    fn json_settings() -> Settings {
        Settings(&[JSON, json::COMMON])
    }

    fn gguf_settings() -> Settings {
        Settings(&[GGUF, experts::GGUF, gguf::PLAIN])
    }

    fn to_json(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("num_local_experts", self.experts.num_experts.into()),
            ("num_experts_per_tok", self.experts.experts_per_row.into()),
            ("sliding_window", self.windows.size().into()),
            ("layer_types", self.windows.to_json()),
        ]
    }

    fn to_gguf(&self, base: &BaseConfig, name: &str) -> Result<Vec<(String, GgufValue)>> {
        let mut scaling = base.rope.scaling.clone();
        if let RopeScaling::Yarn { truncate, .. } = &mut scaling {
            if *truncate {
                let reason = "YaRN with truncate of true: GGUF has no key for it in a gpt-oss";
                return Err(LoadError::Unsupported(reason.to_owned()));
            }
            *truncate = true; // which is what needs no key
        }
        let base = BaseConfig { rope: RopeConfig { scaling, ..base.rope.clone() }, ..base.clone() };
        let mut pairs = base.to_gguf(name)?;
        pairs.extend(self.experts.to_gguf(name)?);
        pairs.extend(self.windows.to_gguf(&base, name, PATTERN)?);
        Ok(pairs)
    }

    fn tensor_table(&self) -> TensorTable {
        TensorTable(&[TENSORS, TensorTable::EXPERTS, TensorTable::PRE_NORM])
    }

    fn fused_modules(&self) -> &'static [FusedModule] {
        FUSED
    }

    fn experts(&self) -> Option<&ExpertsConfig> {
        Some(&self.experts)
    }

    fn stacked_experts(&self) -> Option<StackedExperts> {
        Some(StackedExperts { count: self.experts.num_experts, modules: STACKED, in_turns: true })
    }

    fn attention(&self, base: &BaseConfig, layer: usize) -> Attention {
        Attention { window: self.windows.of(layer), ..Attention::plain(base.heads(), layer) }
    }

    fn decoder<B: Backend>(
        &self,
        base: &BaseConfig,
        weights: &mut Weights<'_, B>,
        positions: usize,
    ) -> Result<Box<dyn Decoder<B>>> {
        let decoder = Stack::load(base, weights, &self.ropes(base), positions, |weights, i, prefix| {
            let mlp = |weights: &mut Weights<'_, B>, prefix: &str| {
                SparseMlp::load(weights, prefix, base, &self.experts, Activation::SwigluOai)
            };
            let mut layer = PreNormLayer::load_with(weights, prefix, base, self.attention(base, i), false, mlp)?;
            layer.self_attn.load_sinks(weights, &format!("{prefix}.self_attn"))?;
            Ok(layer)
        })?;
        Ok(Box::new(decoder))
    }
}
