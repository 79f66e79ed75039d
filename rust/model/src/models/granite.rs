//! Granite 3 and, from GGUF, Granite 4, dense: a Llama that multiplies embeddings, scores of attention, what layers add, and logits.

use nanovllm_backend::{Backend, default_scale};
use nanovllm_gguf::Value as GgufValue;
use serde_json::Value;

use crate::config::BaseConfig;
use crate::config::gguf::{self, Keys};
use crate::config::json::{self, Object};
use crate::config::settings::{Group, Settings, Treatment};
use crate::decoder::{Decoder, FeedForward, GatedMlp, PreNormLayer, Stack};
use crate::error::{LoadError, Result};
use crate::layers::attention::Attention;
use crate::models::family_config::FamilyConfig;
use crate::models::llama;
use crate::models::tensor_table::TensorTable;
use crate::weights::Weights;

/// What a Granite has beyond every decoder, under transformers' names.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What products of queries and keys are multiplied by.
    attention_multiplier: f64,
    /// What the embedding of a token is multiplied by.
    embedding_multiplier: f64,
    /// What attention and the MLP give is multiplied by.
    residual_multiplier: f64,
    /// What logits are divided by.
    logits_scaling: f64,
    /// Whether queries and keys are rotated.
    rotates: bool,
}

/// The settings of config.json that say so.
pub(crate) const MULTIPLIERS: &[Group] =
    &[(Treatment::Read, &["attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling"])];

/// The GGUF metadata that say so.
pub(crate) const SCALES: &[Group] =
    &[(Treatment::Read, &["attention.scale", "embedding_scale", "residual_scale", "logit_scale", ROTATES])];

const HYBRID: &[Group] = &[
    // Of hybrid models, which a dense Granite 4 is a special case of: it has neither states nor experts.
    (
        Treatment::Harmless,
        &[
            "expert_shared_feed_forward_length",
            "ssm.conv_kernel",
            "ssm.state_size",
            "ssm.group_count",
            "ssm.inner_size",
            "ssm.time_step_rank",
        ],
    ),
];

/// llama.cpp leaves out the rotation where this is false.
const ROTATES: &str = "rope.scaling.finetuned";

impl Config {
    /// Reads the multipliers of config.json; whether queries and keys are rotated is for the caller to say.
    pub(crate) fn multiplied(json: Object<'_>, rotates: bool) -> Result<Self> {
        let number = |key: &str| Ok::<_, LoadError>(json.f64(key)?.unwrap_or(1.0));
        let config = Self {
            attention_multiplier: number("attention_multiplier")?,
            embedding_multiplier: number("embedding_multiplier")?,
            residual_multiplier: number("residual_multiplier")?,
            logits_scaling: number("logits_scaling")?,
            rotates,
        };
        config.checked()
    }

    /// Reads the multipliers of GGUF metadata.
    pub(crate) fn scaled(keys: &Keys<'_>, base: &BaseConfig) -> Result<Self> {
        // Zero stands for no such scale, but of scores for the usual one.
        let scale = |key: &str, none: f64| Ok::<_, LoadError>(keys.f64(key)?.filter(|&s| s != 0.0).unwrap_or(none));
        let config = Self {
            attention_multiplier: scale("attention.scale", default_scale(base.head_dim))?,
            embedding_multiplier: scale("embedding_scale", 1.0)?,
            residual_multiplier: scale("residual_scale", 1.0)?,
            logits_scaling: scale("logit_scale", 1.0)?,
            rotates: keys.bool(ROTATES)?.unwrap_or(true),
        };
        config.checked()
    }

    /// A stack of layers whose feed-forward part `mlp` loads, whose prefix it is given.
    pub(crate) fn stack<B: Backend, M: FeedForward<B> + 'static>(
        &self,
        base: &BaseConfig,
        weights: &mut Weights<'_, B>,
        positions: usize,
        mlp: impl Fn(&mut Weights<'_, B>, &str) -> Result<M>,
    ) -> Result<Box<dyn Decoder<B>>> {
        let decoder = Stack::load(base, weights, &self.ropes(base), positions, |weights, i, prefix| {
            let layer = PreNormLayer::load_with(weights, prefix, base, self.attention(base, i), false, &mlp)?;
            Ok(PreNormLayer { residual_multiplier: self.residual_multiplier as f32, ..layer })
        })?;
        Ok(Box::new(decoder.multiplied(self.embedding_multiplier as f32, self.logits_scaling.recip() as f32)))
    }

    /// Refuses what would make every logit the same or none a number.
    fn checked(self) -> Result<Self> {
        let Self { attention_multiplier, embedding_multiplier, residual_multiplier, logits_scaling, .. } = self;
        for (name, value) in [
            ("attention_multiplier", attention_multiplier),
            ("embedding_multiplier", embedding_multiplier),
            ("residual_multiplier", residual_multiplier),
            ("logits_scaling", logits_scaling),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(LoadError::Config(format!("{name} must be positive, got {value}")));
            }
        }
        Ok(self)
    }
}

impl FamilyConfig for Config {
    fn from_json(json: Object<'_>, _: &mut BaseConfig) -> Result<Self> {
        json::check_plain(json)?;
        Self::multiplied(json, true)
    }

    fn from_gguf(keys: &Keys<'_>, base: &mut BaseConfig) -> Result<Self> {
        gguf::check_plain(keys, base)?;
        Self::scaled(keys, base)
    }

    fn json_settings() -> Settings {
        Settings(&[MULTIPLIERS, json::COMMON])
    }

    fn gguf_settings() -> Settings {
        Settings(&[SCALES, HYBRID, gguf::PLAIN])
    }

    fn to_json(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("attention_multiplier", self.attention_multiplier.into()),
            ("embedding_multiplier", self.embedding_multiplier.into()),
            ("residual_multiplier", self.residual_multiplier.into()),
            ("logits_scaling", self.logits_scaling.into()),
        ]
    }

    fn to_gguf(&self, base: &BaseConfig, name: &str) -> Result<Vec<(String, GgufValue)>> {
        let mut pairs = base.to_gguf(name)?;
        pairs.extend([
            gguf::float(name, "attention.scale", self.attention_multiplier),
            gguf::float(name, "embedding_scale", self.embedding_multiplier),
            gguf::float(name, "residual_scale", self.residual_multiplier),
            gguf::float(name, "logit_scale", self.logits_scaling),
            (format!("{name}.{ROTATES}"), GgufValue::Bool(self.rotates)),
        ]);
        Ok(pairs)
    }

    fn tensor_table(&self) -> TensorTable {
        llama::TABLE
    }

    fn attention(&self, base: &BaseConfig, layer: usize) -> Attention {
        let rope = self.rotates.then_some(0);
        Attention { rope, scale: self.attention_multiplier, ..Attention::plain(base.heads(), layer) }
    }

    fn decoder<B: Backend>(
        &self,
        base: &BaseConfig,
        weights: &mut Weights<'_, B>,
        positions: usize,
    ) -> Result<Box<dyn Decoder<B>>> {
        self.stack(base, weights, positions, |weights, prefix| GatedMlp::load(weights, prefix, base))
    }
}
