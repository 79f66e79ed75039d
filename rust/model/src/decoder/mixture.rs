//! Experts and what chooses among them.

use std::sync::Arc;

use nanovllm_backend::{Activation, Backend, Experts, Routing};

use crate::config::BaseConfig;
use crate::config::experts::ExpertsConfig;
use crate::decoder::buffers::{ExpertBuffers, ExpertSizes};
use crate::error::Result;
use crate::layers::linear::{Linear, LinearSharding};
use crate::sharding::{Sharding, TpRank};
use crate::weights::Weights;

/// A router and gated MLPs, of which each row goes through few (Shazeer et al. 2017).
pub(crate) struct Mixture<B: Backend> {
    /// To a logit for each expert.
    router: Linear<B>,
    gate_up: Vec<B::Weight>,
    down: Vec<B::Weight>,
    biases: Option<Biases<B>>,
    /// What the outputs of each expert are multiplied by, `[1, experts]`, in families that have it.
    factors: Option<Arc<B::Tensor>>,
    activation: Activation,
    normalized: bool,
    pub(super) sizes: ExpertSizes,
}

/// What is added to what the projections of each expert give.
struct Biases<B: Backend> {
    /// `[experts, 2 intermediate]`.
    gate_up: B::Tensor,
    /// `[experts, hidden]`.
    down: B::Tensor,
}

impl<B: Backend> Mixture<B> {
    /// Loads the router of this name and the experts whose names begin with `experts`.
    pub(crate) fn load(
        weights: &mut Weights<'_, B>,
        router: &str,
        experts: &str,
        base: &BaseConfig,
        config: &ExpertsConfig,
        activation: Activation,
    ) -> Result<Self> {
        let &ExpertsConfig { num_experts, experts_per_row, intermediate_size, normalized, bias, .. } = config;
        let (hidden, tp) = (base.hidden_size, TpRank::SINGLE);
        let to_logits = LinearSharding::row_parallel(hidden, num_experts, bias, tp)?;
        let router = Linear::load(weights, router, to_logits)?;
        let mut gate_up = Vec::new();
        let mut down = Vec::new();
        for expert in 0..num_experts {
            // What is missing is refused in the end; the names of all further experts would say no more.
            if weights.is_incomplete() {
                break;
            }
            let up = LinearSharding::column_parallel(hidden, &[intermediate_size; 2], false, tp)?;
            let back = LinearSharding::row_parallel(intermediate_size, hidden, false, tp)?;
            let module = |module: &str| format!("{experts}.{expert}.{module}");
            gate_up.push(Linear::load_expert(weights, &module("gate_up_proj"), up)?);
            down.push(Linear::load_expert(weights, &module("down_proj"), back)?);
        }
        let biases = (bias && !weights.is_incomplete()).then(|| -> Result<Biases<B>> {
            let mut of_each = |modules: &[&str], len: usize| {
                let names = (0..num_experts)
                    .flat_map(|expert| modules.iter().map(move |module| format!("{experts}.{expert}.{module}.bias")));
                let parts = vec![len; num_experts * modules.len()];
                weights.vectors(&names.collect::<Vec<_>>(), Sharding::by_rows(&parts, None, tp)?, num_experts)
            };
            Ok(Biases {
                gate_up: of_each(&["gate_proj", "up_proj"], intermediate_size)?,
                down: of_each(&["down_proj"], hidden)?,
            })
        });
        let sizes = ExpertSizes { experts: num_experts, experts_per_row, hidden, intermediate: intermediate_size };
        Ok(Self { router, gate_up, down, biases: biases.transpose()?, factors: None, activation, normalized, sizes })
    }

    /// The same mixture, whose experts' outputs are multiplied by the values of the tensor of this name.
    pub(crate) fn with_factors(self, weights: &mut Weights<'_, B>, name: String) -> Result<Self> {
        let of_each = Sharding::replicated(self.sizes.experts, None)?;
        Ok(Self { factors: Some(weights.vector(&[name], of_each)?), ..self })
    }

    /// Puts the logits of rows for each expert, `[rows, experts]`, into `buffers`; `x` is `[rows, hidden]`.
    pub(super) fn route(&self, backend: &B, x: &B::Tensor, buffers: &mut ExpertBuffers<B>) {
        self.router.forward(backend, x, &mut buffers.logits);
    }

    /// From `x` to `out`, both `[rows, hidden]`, by the logits that [`route`](Self::route) put there.
    pub(super) fn forward(&self, backend: &B, x: &B::Tensor, buffers: &mut ExpertBuffers<B>, out: &mut B::Tensor) {
        let routing = Routing {
            experts_per_row: self.sizes.experts_per_row,
            normalized: self.normalized,
            factors: self.factors.as_deref(),
        };
        let experts = Experts {
            gate_up: &self.gate_up,
            down: &self.down,
            gate_up_bias: self.biases.as_ref().map(|biases| &biases.gate_up),
            down_bias: self.biases.as_ref().map(|biases| &biases.down),
            activation: self.activation,
        };
        backend.experts(x, &buffers.logits, &routing, &experts, &mut buffers.room, out);
    }
}
