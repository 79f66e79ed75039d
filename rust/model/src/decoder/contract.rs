//! What the model asks of a family's decoder.

use nanovllm_backend::Backend;

use crate::slices::Slice;

/// Most rows whose logits are held at once.
pub(crate) const HEAD_ROWS: usize = 64;

/// A decoder on a device, with the rotary tables and the activation buffers it works in.
///
/// The model calls it through this trait once a slice, and once for each [`HEAD_ROWS`] rows that need logits; inside, layers are
/// static.
pub(crate) trait Decoder<B: Backend>: Send {
    /// Runs the layers over a slice and keeps what they give for [`logits`](Self::logits).
    fn forward(&mut self, backend: &B, slice: &Slice<'_>, cache: &mut B::KvCache);

    /// Logits of some rows of the last slice, at most [`HEAD_ROWS`]: `[rows, vocab_size]`, for the caller to overwrite.
    fn logits(&mut self, backend: &B, rows: &[u32]) -> &mut B::Tensor;
}
