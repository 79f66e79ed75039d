//! The feed-forward part of a layer with experts.

use nanovllm_backend::{Activation, Backend, Experts, Routing};

use crate::config::BaseConfig;
use crate::config::experts::ExpertsConfig;
use crate::decoder::buffers::{ExpertBuffers, ExpertSizes, MlpBuffers, MlpSizes};
use crate::decoder::mlp::{FeedForward, GatedMlp};
use crate::error::Result;
use crate::layers::linear::{Linear, LinearSharding};
use crate::sharding::TpRank;
use crate::weights::Weights;

/// A mixture of gated MLPs, of which each row goes through few (Shazeer et al. 2017).
pub(crate) struct SparseMlp<B: Backend> {
    /// To a logit for each expert.
    router: Linear<B>,
    gate_up: Vec<B::Weight>,
    down: Vec<B::Weight>,
    activation: Activation,
    normalized: bool,
    /// An MLP that every row goes through, which is added.
    shared: Option<GatedMlp<B>>,
    sizes: ExpertSizes,
}

impl<B: Backend> SparseMlp<B> {
    /// Loads `prefix.gate`, the router, the experts of `prefix.experts`, and `prefix.shared` where there is such an MLP.
    pub(crate) fn load(
        weights: &mut Weights<'_, B>,
        prefix: &str,
        base: &BaseConfig,
        config: &ExpertsConfig,
    ) -> Result<Self> {
        let &ExpertsConfig { num_experts, experts_per_row, intermediate_size, shared_size, normalized } = config;
        let (hidden, tp) = (base.hidden_size, TpRank::SINGLE);
        let to_logits = LinearSharding::row_parallel(hidden, num_experts, false, tp)?;
        let router = Linear::load(weights, &format!("{prefix}.gate"), to_logits)?;
        let mut gate_up = Vec::new();
        let mut down = Vec::new();
        for expert in 0..num_experts {
            // What is missing is refused in the end; the names of all further experts would say no more.
            if weights.is_incomplete() {
                break;
            }
            let name = |module: &str| format!("{prefix}.experts.{expert}.{module}.weight");
            let up = LinearSharding::column_parallel(hidden, &[intermediate_size; 2], false, tp)?;
            gate_up.push(weights.packed(&[name("gate_proj"), name("up_proj")], up.weight)?);
            let back = LinearSharding::row_parallel(intermediate_size, hidden, false, tp)?;
            down.push(weights.packed(&[name("down_proj")], back.weight)?);
        }
        let shared = shared_size.map(|intermediate_size| {
            let base = BaseConfig { intermediate_size, ..base.clone() };
            GatedMlp::load(weights, &format!("{prefix}.shared"), &base)
        });
        let sizes = ExpertSizes { experts: num_experts, experts_per_row, hidden, intermediate: intermediate_size };
        Ok(Self { router, gate_up, down, activation: Activation::Silu, normalized, shared: shared.transpose()?, sizes })
    }
}

impl<B: Backend> FeedForward<B> for SparseMlp<B> {
    fn sizes(&self) -> MlpSizes {
        let intermediate = self.shared.as_ref().map_or(0, |shared| shared.intermediate_size);
        MlpSizes { intermediate, experts: Some(self.sizes) }
    }

    fn forward(&self, backend: &B, x: &B::Tensor, buffers: &mut MlpBuffers<B>, out: &mut B::Tensor) {
        // Buffers of these sizes have them.
        let Some(ExpertBuffers { logits, room, shared: beside }) = &mut buffers.experts else { return };
        self.router.forward(backend, x, logits);
        let routing =
            Routing { experts_per_row: self.sizes.experts_per_row, normalized: self.normalized, factors: None };
        let experts = Experts {
            gate_up: &self.gate_up,
            down: &self.down,
            gate_up_bias: None,
            down_bias: None,
            activation: self.activation,
        };
        backend.experts(x, logits, &routing, &experts, room, out);
        if let Some(shared) = &self.shared {
            shared.run(backend, x, &mut buffers.gate_up, &mut buffers.activation, beside);
            backend.add(beside, out);
        }
    }
}

/// The feed-forward part of a layer in families of which only some layers have experts.
pub(crate) enum Mlp<B: Backend> {
    Dense(GatedMlp<B>),
    Sparse(SparseMlp<B>),
}

impl<B: Backend> FeedForward<B> for Mlp<B> {
    fn sizes(&self) -> MlpSizes {
        match self {
            Self::Dense(mlp) => mlp.sizes(),
            Self::Sparse(mlp) => mlp.sizes(),
        }
    }

    fn forward(&self, backend: &B, x: &B::Tensor, buffers: &mut MlpBuffers<B>, out: &mut B::Tensor) {
        match self {
            Self::Dense(mlp) => mlp.forward(backend, x, buffers, out),
            Self::Sparse(mlp) => mlp.forward(backend, x, buffers, out),
        }
    }
}
