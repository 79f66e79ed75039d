//! The feed-forward part of a layer with experts.

use nanovllm_backend::{Activation, Backend};

use crate::config::BaseConfig;
use crate::config::experts::ExpertsConfig;
use crate::decoder::buffers::{MlpBuffers, MlpSizes};
use crate::decoder::mixture::Mixture;
use crate::decoder::mlp::{FeedForward, GatedMlp};
use crate::error::Result;
use crate::weights::Weights;

/// A mixture of experts, and an MLP beside it in families that have one.
pub(crate) struct SparseMlp<B: Backend> {
    mixture: Mixture<B>,
    /// An MLP that every row goes through, which is added.
    shared: Option<GatedMlp<B>>,
}

impl<B: Backend> SparseMlp<B> {
    /// Loads `prefix.gate`, the router, the experts of `prefix.experts`, and `prefix.shared` where there is such an MLP.
    pub(crate) fn load(
        weights: &mut Weights<'_, B>,
        prefix: &str,
        base: &BaseConfig,
        config: &ExpertsConfig,
        activation: Activation,
    ) -> Result<Self> {
        let (router, experts) = (format!("{prefix}.gate"), format!("{prefix}.experts"));
        let mixture = Mixture::load(weights, &router, &experts, base, config, activation)?;
        let shared = config.shared_size.map(|intermediate_size| {
            let base = BaseConfig { intermediate_size, ..base.clone() };
            GatedMlp::load(weights, &format!("{prefix}.shared"), &base)
        });
        Ok(Self { mixture, shared: shared.transpose()? })
    }
}

impl<B: Backend> FeedForward<B> for SparseMlp<B> {
    fn sizes(&self) -> MlpSizes {
        let intermediate = self.shared.as_ref().map_or(0, |shared| shared.intermediate_size);
        MlpSizes { intermediate, experts: Some(self.mixture.sizes) }
    }

    fn forward(&self, backend: &B, x: &B::Tensor, buffers: &mut MlpBuffers<B>, out: &mut B::Tensor) {
        // Buffers of these sizes have them.
        let Some(experts) = &mut buffers.experts else { return };
        self.mixture.route(backend, x, experts);
        self.mixture.forward(backend, x, experts, out);
        if let Some(shared) = &self.shared {
            shared.run(backend, x, &mut buffers.gate_up, &mut buffers.activation, &mut experts.beside);
            backend.add(&experts.beside, out);
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
