//! Root-mean-square norm, with and without the residual addition.

use std::sync::Arc;

use nanovllm_backend::{Backend, HeadNorm};

use crate::error::Result;
use crate::sharding::Sharding;
use crate::weights::Weights;

/// A root-mean-square norm of rows, with its weight and epsilon.
pub struct RmsNorm<B: Backend> {
    weight: Arc<B::Tensor>,
    eps: f32,
}

impl<B: Backend> RmsNorm<B> {
    /// A norm of rows as wide as `weight`, `[1, width]`.
    pub fn new(weight: Arc<B::Tensor>, eps: f32) -> Self {
        Self { weight, eps }
    }

    pub(crate) fn load(weights: &mut Weights<'_, B>, prefix: &str, size: usize, eps: f32) -> Result<Self> {
        Self::load_named(weights, format!("{prefix}.weight"), size, eps)
    }

    /// The norm whose weight has this name.
    pub(crate) fn load_named(weights: &mut Weights<'_, B>, name: String, size: usize, eps: f32) -> Result<Self> {
        Ok(Self { weight: weights.vector(&[name], Sharding::replicated(size, None)?)?, eps })
    }

    /// `out = norm(x)`.
    pub fn forward(&self, backend: &B, x: &B::Tensor, out: &mut B::Tensor) {
        backend.rms_norm(x, &self.weight, self.eps, out);
    }

    /// `residual += x; out = norm(residual)`.
    pub fn add_forward(&self, backend: &B, x: &B::Tensor, residual: &mut B::Tensor, out: &mut B::Tensor) {
        backend.add_rms_norm(x, residual, &self.weight, self.eps, out);
    }

    /// The norm of heads instead of rows, as [`Backend::norm_rope_store`] takes it.
    pub fn of_heads(&self) -> HeadNorm<'_, B::Tensor> {
        HeadNorm { weight: Some(&self.weight), eps: self.eps }
    }
}
