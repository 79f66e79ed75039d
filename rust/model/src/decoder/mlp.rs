//! The feed-forward part of one layer.

use nanovllm_backend::{Activation, Backend};

use crate::config::BaseConfig;
use crate::decoder::buffers::{MlpBuffers, MlpSizes};
use crate::error::Result;
use crate::layers::linear::{Linear, LinearSharding};
use crate::sharding::TpRank;
use crate::weights::Weights;

/// What a layer does with each row by itself.
pub trait FeedForward<B: Backend>: Send {
    /// The widths of what it works in.
    fn sizes(&self) -> MlpSizes;

    /// From `x` to `out`, both `[rows, hidden]`.
    fn forward(&self, backend: &B, x: &B::Tensor, buffers: &mut MlpBuffers<B>, out: &mut B::Tensor);
}

/// The gated feed-forward (Shazeer 2020).
pub struct GatedMlp<B: Backend> {
    /// To gates and values, as one projection.
    pub gate_up_proj: Linear<B>,
    /// Back to the residual stream.
    pub down_proj: Linear<B>,
    /// What gates go through.
    pub activation: Activation,
    /// The width between the projections.
    pub intermediate_size: usize,
}

impl<B: Backend> GatedMlp<B> {
    pub(crate) fn load(weights: &mut Weights<'_, B>, prefix: &str, base: &BaseConfig) -> Result<Self> {
        let (hidden, intermediate, bias) = (base.hidden_size, base.intermediate_size, base.mlp_bias);
        let tp = TpRank::SINGLE;
        let gate_up = LinearSharding::column_parallel(hidden, &[intermediate; 2], bias, tp)?;
        let down = LinearSharding::row_parallel(intermediate, hidden, bias, tp)?;
        Ok(Self {
            gate_up_proj: Linear::load(weights, &format!("{prefix}.gate_up_proj"), gate_up)?,
            down_proj: Linear::load(weights, &format!("{prefix}.down_proj"), down)?,
            activation: Activation::Silu,
            intermediate_size: intermediate,
        })
    }

    /// The same in buffers of `[rows, 2 intermediate]` and `[rows, intermediate]`.
    pub(super) fn run(
        &self,
        backend: &B,
        x: &B::Tensor,
        gate_up: &mut B::Tensor,
        activation: &mut B::Tensor,
        out: &mut B::Tensor,
    ) {
        self.gate_up_proj.forward(backend, x, gate_up);
        backend.activate_and_mul(self.activation, gate_up, activation);
        self.down_proj.forward(backend, activation, out);
    }
}

impl<B: Backend> FeedForward<B> for GatedMlp<B> {
    fn sizes(&self) -> MlpSizes {
        MlpSizes { intermediate: self.intermediate_size, experts: None }
    }

    fn forward(&self, backend: &B, x: &B::Tensor, buffers: &mut MlpBuffers<B>, out: &mut B::Tensor) {
        self.run(backend, x, &mut buffers.gate_up, &mut buffers.activation, out);
    }
}
