//! Experts beside the MLP of a layer (Gemma 4).

use nanovllm_backend::{Activation, Backend};

use crate::config::BaseConfig;
use crate::config::experts::ExpertsConfig;
use crate::decoder::buffers::{ExpertSizes, MlpBuffers};
use crate::decoder::mixture::Mixture;
use crate::decoder::multiply::multiply;
use crate::error::Result;
use crate::layers::layernorm::RmsNorm;
use crate::weights::Weights;

/// A mixture of experts that reads the stream as the MLP beside it does. Each of the two is normed before they are added.
pub(crate) struct ExpertBranch<B: Backend> {
    mixture: Mixture<B>,
    /// Norms the router's input.
    router_norm: RmsNorm<B>,
    /// What that is then multiplied by.
    router_multiplier: f32,
    /// Norms the input of the experts.
    input_norm: RmsNorm<B>,
    /// Norms what they gave.
    output_norm: RmsNorm<B>,
    /// Norms what the MLP beside them gave.
    mlp_norm: RmsNorm<B>,
}

impl<B: Backend> ExpertBranch<B> {
    /// Loads the router, the experts and the norms of the layer whose names begin with `prefix`.
    pub(crate) fn load(
        weights: &mut Weights<'_, B>,
        prefix: &str,
        base: &BaseConfig,
        config: &ExpertsConfig,
        activation: Activation,
    ) -> Result<Self> {
        let (hidden, eps) = (base.hidden_size, base.rms_norm_eps);
        let name = |name: &str| format!("{prefix}.{name}");
        let mixture = Mixture::load(weights, &name("router.proj"), &name("mlp.experts"), base, config, activation)?;
        let mixture = mixture.with_factors(weights, name("router.per_expert_scale"))?;
        let mut norm = |module: &str| RmsNorm::load(weights, &name(module), hidden, eps);
        let (mlp_norm, output_norm) = (norm("post_feedforward_layernorm_1")?, norm("post_feedforward_layernorm_2")?);
        Ok(Self {
            mixture,
            input_norm: norm("pre_feedforward_layernorm_2")?,
            output_norm,
            mlp_norm,
            router_norm: RmsNorm::load_named(weights, name("router.scale"), hidden, eps)?,
            router_multiplier: (hidden as f64).sqrt().recip() as f32,
        })
    }

    /// The widths of what the experts work in.
    pub(super) fn sizes(&self) -> ExpertSizes {
        self.mixture.sizes
    }

    /// Norms what the MLP gave, `out`, and adds what the experts make of the stream; `room` is of the same shape, `[rows,
    /// hidden]`.
    pub(super) fn add_to(
        &self,
        backend: &B,
        stream: &B::Tensor,
        buffers: &mut MlpBuffers<B>,
        room: &mut B::Tensor,
        out: &mut B::Tensor,
    ) {
        // Buffers of these sizes have them.
        let Some(experts) = &mut buffers.experts else { return };
        self.router_norm.forward(backend, stream, room);
        multiply(backend, room, self.router_multiplier);
        self.mixture.route(backend, room, experts);
        self.mlp_norm.forward(backend, out, &mut experts.beside);
        self.input_norm.forward(backend, stream, out);
        self.mixture.forward(backend, out, experts, room);
        self.output_norm.forward(backend, room, out);
        backend.add(&experts.beside, out);
    }
}
