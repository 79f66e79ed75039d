//! Root-mean-square norm, with and without the residual addition.

use nanovllm_backend::Backend;

use crate::error::Result;
use crate::weights::Weights;

/// A norm's weight and epsilon.
pub(crate) struct RmsNorm<B: Backend> {
    weight: B::Tensor,
    eps: f32,
}

impl<B: Backend> RmsNorm<B> {
    pub(crate) fn load(weights: &mut Weights<'_, B>, prefix: &str, size: usize, eps: f32) -> Result<Self> {
        Ok(Self { weight: weights.vector(&format!("{prefix}.weight"), size)?, eps })
    }

    /// `out = norm(x)`.
    pub(crate) fn forward(&self, backend: &B, x: &B::Tensor, out: &mut B::Tensor) {
        backend.rms_norm(x, &self.weight, self.eps, out);
    }

    /// `residual += x; out = norm(residual)`.
    pub(crate) fn add_forward(&self, backend: &B, x: &B::Tensor, residual: &mut B::Tensor, out: &mut B::Tensor) {
        backend.add_rms_norm(x, residual, &self.weight, self.eps, out);
    }

    /// Weight and epsilon, for an operation that norms along the way.
    pub(crate) fn parts(&self) -> (&B::Tensor, f32) {
        (&self.weight, self.eps)
    }
}
