//! The token embedding and the output projection, which may be one matrix.

use std::sync::Arc;

use nanovllm_backend::Backend;

use crate::error::Result;
use crate::sharding::{Sharding, TpRank};
use crate::weights::Weights;

/// The token embedding: a row for each token id.
pub struct VocabParallelEmbedding<B: Backend> {
    weight: Arc<B::Weight>,
}

impl<B: Backend> VocabParallelEmbedding<B> {
    /// The embedding of a packed matrix `[tokens, hidden]`.
    pub fn new(weight: Arc<B::Weight>) -> Self {
        Self { weight }
    }

    pub(crate) fn load(weights: &mut Weights<'_, B>, prefix: &str, vocab: usize, hidden: usize) -> Result<Self> {
        let sharding = Sharding::by_rows(&[vocab], Some(hidden), TpRank::SINGLE)?;
        Ok(Self { weight: weights.matrix(&[format!("{prefix}.weight")], sharding)? })
    }

    /// `out[i] = weight[ids[i]]`; ids are in range.
    pub fn forward(&self, backend: &B, ids: &[u32], out: &mut B::Tensor) {
        backend.embedding(&self.weight, ids, out);
    }
}

/// The output projection: logits of the whole vocabulary for each row.
pub struct ParallelLmHead<B: Backend> {
    weight: Arc<B::Weight>,
}

impl<B: Backend> ParallelLmHead<B> {
    /// The projection by a packed matrix `[tokens, hidden]`.
    pub fn new(weight: Arc<B::Weight>) -> Self {
        Self { weight }
    }

    pub(crate) fn load(weights: &mut Weights<'_, B>, prefix: &str, vocab: usize, hidden: usize) -> Result<Self> {
        VocabParallelEmbedding::load(weights, prefix, vocab, hidden).map(|embedding| Self::tied(&embedding))
    }

    /// The projection by the embedding's own matrix, which is stored once.
    pub fn tied(embedding: &VocabParallelEmbedding<B>) -> Self {
        Self { weight: Arc::clone(&embedding.weight) }
    }

    /// `[rows, hidden] -> [rows, tokens]`; the caller has chosen the rows that need logits.
    pub fn forward(&self, backend: &B, x: &B::Tensor, out: &mut B::Tensor) {
        backend.linear(x, &self.weight, None, out);
    }
}
