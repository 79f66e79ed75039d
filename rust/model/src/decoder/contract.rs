//! What the model asks of a family's decoder.

use nanovllm_backend::{Backend, Result};

use crate::decoder::buffers::{Buffers, LayerSizes};
use crate::layers::rotary_embedding::RotaryEmbedding;
use crate::slices::Slice;

/// The most rows whose logits are computed at once: a bound on the buffers, as a row has a logit for each token of the
/// vocabulary.
pub(crate) const HEAD_ROWS: usize = 64;

/// One layer of a decoder.
pub trait DecoderLayer<B: Backend>: Send {
    /// The widths of what it works in.
    fn sizes(&self) -> LayerSizes;

    /// Adds `buffers.hidden`, which the layer before left, to `buffers.residual`, runs attention and the MLP, and
    /// leaves what is to be added next in `buffers.hidden`. The first layer has nothing to add: the residual stream is
    /// the embedding.
    fn forward(
        &self,
        backend: &B,
        is_first: bool,
        ropes: &[RotaryEmbedding<B>],
        slice: &Slice<'_>,
        cache: &mut B::KvCache,
        buffers: &mut Buffers<B>,
    );
}

/// A decoder on a device, with the rotary tables and the activation buffers it works in.
///
/// The model calls it through this trait, whose calls are virtual, once a slice and once for each [`HEAD_ROWS`] rows
/// that need logits; within a decoder no call is.
pub(crate) trait Decoder<B: Backend>: Send {
    /// Runs the layers over a slice, whose keys and values go into `cache`, and keeps what they give for
    /// [`logits`](Self::logits).
    ///
    /// # Errors
    /// [`Error::Device`](nanovllm_backend::Error::Device) where a part of the model that stays in its file cannot be read any more.
    fn forward(&mut self, backend: &B, slice: &Slice<'_>, cache: &mut B::KvCache) -> Result<()>;

    /// The hidden states of `rows` of the last slice, counted from its first and at most [`HEAD_ROWS`]: `[rows, hidden_size]`, after
    /// the last norm.
    fn hidden_states(&mut self, backend: &B, rows: &[u32]) -> &B::Tensor;

    /// The logits of `rows` of the last slice, counted from its first and at most [`HEAD_ROWS`]: `[rows, vocab_size]`,
    /// which the caller may overwrite.
    fn logits(&mut self, backend: &B, rows: &[u32]) -> &mut B::Tensor;
}
