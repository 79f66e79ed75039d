//! The token embedding and the output projection, which may be one matrix.

use std::sync::Arc;

use nanovllm_backend::Backend;

use crate::error::Result;
use crate::weights::Weights;

/// Token ids to rows.
pub(crate) struct VocabParallelEmbedding<B: Backend> {
    weight: Arc<B::Weight>,
}

impl<B: Backend> VocabParallelEmbedding<B> {
    pub(crate) fn load(weights: &mut Weights<'_, B>, prefix: &str, vocab: usize, hidden: usize) -> Result<Self> {
        Ok(Self { weight: Arc::new(weights.matrix(&format!("{prefix}.weight"), vocab, hidden)?) })
    }

    /// `out[i] = weight[ids[i]]`.
    pub(crate) fn forward(&self, backend: &B, ids: &[u32], out: &mut B::Tensor) {
        backend.embedding(&self.weight, ids, out);
    }
}

/// Rows to logits.
pub(crate) struct ParallelLmHead<B: Backend> {
    weight: Arc<B::Weight>,
}

impl<B: Backend> ParallelLmHead<B> {
    pub(crate) fn load(weights: &mut Weights<'_, B>, prefix: &str, vocab: usize, hidden: usize) -> Result<Self> {
        Ok(Self { weight: Arc::new(weights.matrix(&format!("{prefix}.weight"), vocab, hidden)?) })
    }

    /// The embedding's own matrix, stored once.
    pub(crate) fn tied(embedding: &VocabParallelEmbedding<B>) -> Self {
        Self { weight: Arc::clone(&embedding.weight) }
    }

    /// `[rows, hidden] -> [rows, vocab]`; the caller has chosen the rows that need logits.
    pub(crate) fn forward(&self, backend: &B, x: &B::Tensor, out: &mut B::Tensor) {
        backend.linear(x, &self.weight, None, out);
    }
}
