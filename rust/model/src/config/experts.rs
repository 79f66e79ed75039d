//! What a mixture of experts has.

use crate::config::BaseConfig;
use crate::config::gguf::{self, Keys};
use crate::config::settings::{Group, Literal, Treatment};
use crate::error::{LoadError, Result};

/// The most experts of a layer. Each has tensors of its own, which a number that no model has must not make many.
const MOST_EXPERTS: usize = 1 << 12;

/// The GGUF metadata of experts whose weights are a softmax that adds up to 1.
pub(crate) const GGUF: &[Group] = &[
    (Treatment::Read, &["expert_count", "expert_used_count", "expert_feed_forward_length"]),
    // A softmax, or what stands for none named.
    (Treatment::Only(&[Literal::Number(0.0), Literal::Number(1.0)]), &["expert_gating_func"]),
    (Treatment::Only(&[Literal::Bool(true)]), &["expert_weights_norm"]),
];

/// The experts of a layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ExpertsConfig {
    /// How many there are.
    pub(crate) num_experts: usize,
    /// How many each token goes through.
    pub(crate) experts_per_row: usize,
    /// Width of each between its projections.
    pub(crate) intermediate_size: usize,
    /// Width of an MLP that all tokens go through beside them, if there is one.
    pub(crate) shared_size: Option<usize>,
    /// Whether the weights of a token's experts add up to 1.
    pub(crate) normalized: bool,
    /// Whether the router and the projections of experts have biases.
    pub(crate) bias: bool,
}

impl ExpertsConfig {
    /// Refuses numbers that no model has.
    pub(crate) fn checked(self) -> Result<Self> {
        let Self { num_experts, experts_per_row, intermediate_size, shared_size, .. } = self;
        if !(2..=MOST_EXPERTS).contains(&num_experts) {
            let reason = format!("the number of experts must be between 2 and {MOST_EXPERTS}, got {num_experts}");
            return Err(LoadError::Config(reason));
        }
        if !(1..=num_experts).contains(&experts_per_row) {
            let reason = format!("a token must go through 1 to {num_experts} experts, got {experts_per_row}");
            return Err(LoadError::Config(reason));
        }
        for width in [Some(intermediate_size), shared_size].into_iter().flatten() {
            if !(1..=1 << 28).contains(&width) {
                let limit = 1 << 28;
                let reason = format!("the width of an expert must be between 1 and {limit}, got {width}");
                return Err(LoadError::Config(reason));
            }
        }
        Ok(self)
    }

    /// Reads GGUF metadata, which do not say how weights are made of logits; experts of no width of their own have that of
    /// `base`.
    pub(crate) fn from_gguf(keys: &Keys<'_>, base: &BaseConfig, normalized: bool) -> Result<Self> {
        let config = Self {
            num_experts: keys.usize("expert_count")?,
            experts_per_row: keys.usize("expert_used_count")?,
            intermediate_size: keys.opt("expert_feed_forward_length")?.unwrap_or(base.intermediate_size),
            shared_size: keys.opt("expert_shared_feed_forward_length")?.filter(|&size| size > 0),
            normalized,
            bias: false,
        };
        config.checked()
    }

    /// The GGUF metadata, for keys that begin with `name`.
    pub(crate) fn to_gguf(&self, name: &str) -> Result<Vec<(String, nanovllm_gguf::Value)>> {
        let mut pairs = vec![
            gguf::number(name, "expert_count", self.num_experts)?,
            gguf::number(name, "expert_used_count", self.experts_per_row)?,
            gguf::number(name, "expert_feed_forward_length", self.intermediate_size)?,
        ];
        if let Some(size) = self.shared_size {
            pairs.push(gguf::number(name, "expert_shared_feed_forward_length", size)?);
        }
        Ok(pairs)
    }
}
