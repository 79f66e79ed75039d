//! The trait that a device implements.

use crate::attention::{AttentionOptions, HeadLayout, HeadNorms, Rope};
use crate::context::Context;
use crate::error::Result;
use crate::kv_cache::KvCacheSpec;
use crate::memory::Memory;
use crate::sample::SampleRow;
use crate::weight::{DType, WeightPart};

/// A device that executes a model's operations.
///
/// Activations are row-major matrices, one row a token. Every operation sets the row count of its output to that of its
/// input (at most the capacity the output was made with), so a model allocates its buffers once. Operations on one
/// backend are issued from one thread at a time; what fails in one is reported by [`synchronize`](Backend::synchronize).
pub trait Backend: Send + Sync + 'static {
    /// An activation matrix with a fixed capacity of rows and a current number of rows.
    type Tensor: Send + Sync;
    /// A weight matrix in the layout the device wants, packed once at load.
    type Weight: Send + Sync;
    /// The paged key/value cache of all layers.
    type KvCache: Send + Sync;

    /// A short description for logs: device, instruction set, threads.
    fn describe(&self) -> String;

    /// The device's own memory; `None` for a device that computes in the host's, or cannot tell.
    fn memory(&self) -> Option<Memory> {
        None
    }

    /// A zeroed activation matrix with room for `rows` rows of `cols` values; its current row count is `rows`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when the device cannot hold it.
    fn tensor(&self, rows: usize, cols: usize) -> Result<Self::Tensor>;

    /// A matrix with the given contents, `data.len() == rows * cols` (norm weights, rotary tables, biases).
    ///
    /// # Errors
    /// [`Error::Shape`] when `data` has another length; [`Error::OutOfMemory`].
    fn upload(&self, data: &[f32], rows: usize, cols: usize) -> Result<Self::Tensor>;

    /// Copies the current rows out as f32, row-major.
    fn download(&self, x: &Self::Tensor) -> Vec<f32>;

    /// Packs one stored matrix into the device's layout.
    ///
    /// # Errors
    /// [`Error::UnsupportedDType`] for a type the device has no kernel for; [`Error::Shape`] when the bytes do not match
    /// the shape; [`Error::OutOfMemory`].
    fn pack(&self, part: &WeightPart<'_>) -> Result<Self::Weight>;

    /// The type [`pack`](Self::pack) stores rows of `cols` values of `dtype` in, where the device has no kernel for `dtype`
    /// itself; otherwise `dtype`.
    fn stored_as(&self, dtype: DType, cols: usize) -> DType {
        let _ = cols;
        dtype
    }

    /// Stacks weights by rows (outputs) into one, in order; the parts may differ in type, not in columns.
    ///
    /// # Errors
    /// [`Error::Shape`] when the columns differ or the list is empty.
    fn concat(&self, parts: Vec<Self::Weight>) -> Result<Self::Weight>;

    /// Allocates the paged cache described by `spec`, lazily where the system can.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::UnsupportedDType`]; those of [`KvCacheSpec::check`].
    fn kv_cache(&self, spec: &KvCacheSpec) -> Result<Self::KvCache>;

    /// `out[i] = weight[ids[i]]`. Ids are in range (the engine checks them where they enter).
    fn embedding(&self, weight: &Self::Weight, ids: &[u32], out: &mut Self::Tensor);

    /// Root-mean-square norm of each row (Zhang and Sennrich 2019): `out = x / sqrt(mean(x^2) + eps) * weight`.
    fn rms_norm(&self, x: &Self::Tensor, weight: &Self::Tensor, eps: f32, out: &mut Self::Tensor);

    /// `residual += x; out = rms_norm(residual)`.
    fn add_rms_norm(
        &self,
        x: &Self::Tensor,
        residual: &mut Self::Tensor,
        weight: &Self::Tensor,
        eps: f32,
        out: &mut Self::Tensor,
    );

    /// `out = x @ weight^T (+ bias)`, `[rows, cols_in] -> [rows, rows_of_weight]`.
    fn linear(&self, x: &Self::Tensor, weight: &Self::Weight, bias: Option<&Self::Tensor>, out: &mut Self::Tensor);

    /// Norms and rotates the heads of a row and stores its keys and values: values are normed, queries and keys normed, then
    /// rotated, and keys and values go to the context's slots of `layer`.
    ///
    /// `qkv` holds `[queries | keys | values]` in each row. Queries are updated in place, keys and values need not be. For a
    /// layer that [shares](LayerCache::Shared) an earlier one's cache a row holds queries alone, and nothing is stored.
    fn norm_rope_store(
        &self,
        qkv: &mut Self::Tensor,
        heads: &HeadLayout,
        norms: &HeadNorms<'_, Self::Tensor>,
        rope: Option<Rope<'_, Self::Tensor>>,
        cache: &mut Self::KvCache,
        layer: usize,
        context: &Context<'_>,
    );

    /// Causal attention of the query part of `qkv` over the cached keys and values of `layer`, the rows just stored
    /// included: `out` is `[rows, num_heads * head_dim]`. Ragged prefill and decode go in one call.
    fn attention(
        &self,
        qkv: &Self::Tensor,
        heads: &HeadLayout,
        options: &AttentionOptions<'_, Self::Tensor>,
        cache: &Self::KvCache,
        layer: usize,
        context: &Context<'_>,
        out: &mut Self::Tensor,
    );

    /// `out = silu(x[:, :n]) * x[:, n:]` with `x` of width `2n`.
    fn silu_and_mul(&self, x: &Self::Tensor, out: &mut Self::Tensor);

    /// `out[i] = x[rows[i]]`.
    fn gather_rows(&self, x: &Self::Tensor, rows: &[u32], out: &mut Self::Tensor);

    /// Chooses one token a row, once the row's bias and mask are [applied](SampleRow::adjust): the arg-max of the
    /// [score](NoiseStream::score) of its logits, `logit / temperature - ln(noise)`, or of the logits alone at temperature 0;
    /// the lowest id wins a tie. A NaN logit is never chosen unless every logit is NaN, which gives 0. [`SampleRow::choose`]
    /// says it in code. The logits may be overwritten.
    fn sample(&self, logits: &mut Self::Tensor, plan: &[SampleRow<'_>], out: &mut [u32]);

    /// Waits for the operations issued so far and reports the first that failed since the last call.
    ///
    /// Operations themselves return no errors, so that a device may queue them. Once one has failed, the device may skip
    /// those that follow until the failure is reported; what any of them should have written is unspecified, and the
    /// caller discards it. The default is for devices whose operations cannot fail.
    ///
    /// # Errors
    /// [`Error::Device`]; [`Error::OutOfMemory`].
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}
