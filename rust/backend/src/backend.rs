//! The trait that a device implements.

use crate::attention::{AttentionOptions, HeadLayout, HeadNorms, Rope};
use crate::context::Context;
use crate::error::Result;
use crate::experts::{ExpertRoom, Experts, Routing};
use crate::kv_cache::{BlockCopy, KvCacheSpec};
use crate::memory::Memory;
use crate::rows::{Activation, Scale};
use crate::sample::{SampleRow, Sampled};
use crate::weight::{DType, FilePart, WeightPart};

/// A device that executes a model's operations.
///
/// # What a device may assume
/// Callers check their input where it enters, so an operation is given shapes that fit each other, and ids, positions,
/// slots, blocks and layers in range; where they are not, a device may panic or report a failure. Operations on one
/// backend come from one thread at a time.
///
/// # What a device must do
/// Activations are row-major f32 matrices, one row a token. An operation sets the row count of its output to that of
/// its input, which is at most the capacity that the output was made with and may be 0: a model allocates its buffers
/// once. A device may compute at once or queue: [`download`](Self::download), [`sample`](Self::sample) and
/// [`synchronize`](Self::synchronize) wait for what was queued before them. The conformance suite says how exact
/// results must be.
pub trait Backend: Send + Sync + 'static {
    /// An activation matrix with a fixed number of columns, a fixed capacity of rows and a current number of rows.
    type Tensor: Send + Sync;
    /// A weight matrix `[outputs, inputs]` in the layout the device wants, packed once at load and never changed.
    type Weight: Send + Sync;
    /// The paged key/value cache of all layers of a model.
    type KvCache: Send + Sync;

    /// A short description for logs: device, instruction set, threads. Whoever keeps packed weights tells devices apart
    /// by it, so backends with different layouts have different descriptions.
    fn describe(&self) -> String;

    /// How much memory the device has of its own, and how much of it is in use now; `None` for a device that computes
    /// in the host's, or cannot tell.
    fn memory(&self) -> Option<Memory> {
        None
    }

    /// Allocates a matrix of `rows` rows, which are also its capacity, of `cols` zeros each.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) when the device cannot hold it.
    fn tensor(&self, rows: usize, cols: usize) -> Result<Self::Tensor>;

    /// Allocates a matrix `[rows, cols]` and copies `data` into it, row by row: norm weights, biases, rotary tables.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) unless `data` has `rows * cols` values;
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    fn upload(&self, data: &[f32], rows: usize, cols: usize) -> Result<Self::Tensor>;

    /// Copies rows from the host into `out`, as many as `data` has, row by row.
    fn write(&self, data: &[f32], out: &mut Self::Tensor);

    /// Copies the current rows of `x` out, row by row.
    fn download(&self, x: &Self::Tensor) -> Vec<f32>;

    /// Packs one stored matrix into the device's layout. Its bytes may lie at any address, and it may have no rows.
    ///
    /// # Errors
    /// [`Error::UnsupportedDType`](crate::Error::UnsupportedDType) for a type that the device has no kernel for;
    /// [`Error::Shape`](crate::Error::Shape) when the columns are not whole blocks of the type, or the bytes are not as
    /// many as the shape asks for; [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    fn pack(&self, part: &WeightPart<'_>) -> Result<Self::Weight>;

    /// The weight of `part` whose data stay where they lie in their file, `data`: they take no memory of the device, and are
    /// arranged anew whenever they are used, with the results that those of [`pack`](Self::pack) give to the last bit. `None` for a
    /// device that packs all, which is the default.
    ///
    /// Whoever uses it calls [`FilePart::check`] before: reading a file that has become shorter ends the process.
    ///
    /// # Errors
    /// Those of [`pack`](Self::pack).
    fn mapped(&self, part: &WeightPart<'_>, data: &FilePart) -> Result<Option<Self::Weight>> {
        let _ = (part, data);
        Ok(None)
    }

    /// About how many bytes a weight of `elements` elements of type `dtype` takes once it is packed. The default is what it takes in
    /// its file.
    fn packed_bytes(&self, dtype: DType, elements: u64) -> u64 {
        let blocks = u128::from(elements) * dtype.type_size() as u128 / dtype.block_size() as u128;
        u64::try_from(blocks).unwrap_or(u64::MAX)
    }

    /// The type in which [`pack`](Self::pack) keeps a matrix of type `dtype` with `cols` columns: `dtype` itself, or
    /// the one it is converted to for want of kernels, of which users are told.
    fn stored_as(&self, dtype: DType, cols: usize) -> DType {
        let _ = cols;
        dtype
    }

    /// Stacks weights by rows (outputs) into one, in order, as q, k and v are. Their types may differ, and each may be
    /// a stack itself.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when their columns differ or there are none.
    fn concat(&self, parts: Vec<Self::Weight>) -> Result<Self::Weight>;

    /// Allocates a paged cache, zeroed, and lazily where the system can: it may be large and is filled bit by bit.
    ///
    /// # Errors
    /// Those of [`KvCacheSpec::check`]; [`Error::UnsupportedDType`](crate::Error::UnsupportedDType) unless the type is
    /// F32 or Bf16; [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    fn kv_cache(&self, spec: &KvCacheSpec) -> Result<Self::KvCache>;

    /// Copies tokens from block to block, in every layer, one copy after another: a block that has got some may hand them on.
    /// Of a block that gets tokens, what is behind these is unspecified.
    fn copy_blocks(&self, cache: &mut Self::KvCache, copies: &[BlockCopy]);

    /// Looks rows of `weight`, `[vocab_size, cols]`, up: `out[i] = weight[ids[i]]`, `[ids.len(), cols]`.
    fn embedding(&self, weight: &Self::Weight, ids: &[u32], out: &mut Self::Tensor);

    /// Root-mean-square norm of each row (Zhang and Sennrich 2019): `out = x / sqrt(mean(x^2) + eps) * weight`. `x` and
    /// `out` are `[rows, cols]`, `weight` is `[1, cols]`; or it is narrower, `[1, width]`, and each `width` values of a row
    /// are normed by themselves, of which `cols` is a multiple.
    fn rms_norm(&self, x: &Self::Tensor, weight: &Self::Tensor, eps: f32, out: &mut Self::Tensor);

    /// Adds to the residual stream and norms the sum: `residual += x`, then `out` is the [`rms_norm`](Self::rms_norm) of
    /// `residual`. All three are `[rows, cols]`.
    fn add_rms_norm(
        &self,
        x: &Self::Tensor,
        residual: &mut Self::Tensor,
        weight: &Self::Tensor,
        eps: f32,
        out: &mut Self::Tensor,
    );

    /// `out = x @ weight^T (+ bias)`: `x` is `[rows, inputs]`, `weight` `[outputs, inputs]`, `bias` `[1, outputs]` and
    /// `out` `[rows, outputs]`. A device may round `x` to 8 bits for quantised weights, and to the weight's own type
    /// for F16 and Bf16.
    fn linear(&self, x: &Self::Tensor, weight: &Self::Weight, bias: Option<&Self::Tensor>, out: &mut Self::Tensor);

    /// What happens to the heads between their projection and [`attention`](Self::attention): query, key and value
    /// heads are normed as `norms` says, query and key heads then rotated by `rope`, and keys and values are stored in
    /// `layer` of the cache, rounded to its type, row `i` at slot `context.slot_mapping[i]`. Nothing else of the
    /// context matters here.
    ///
    /// `qkv` is `[rows, heads.qkv_size()]`, each row `[queries | keys | values]`. Its queries are replaced by the new
    /// ones; what its keys and values are afterwards is unspecified. For a layer that
    /// [shares](crate::LayerCache::Shared) an earlier one's cache, `qkv` is `[rows, heads.q_size()]`, queries alone,
    /// and nothing is stored. The key/value heads of `heads` are those of the layer in the cache's [`KvCacheSpec`].
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

    /// Causal attention, prefill and decode in one call: the queries of each row of `qkv` attend to the keys and values
    /// that `layer` of the cache holds for the row's sequence, up to the row's own position, those just stored
    /// included.
    ///
    /// `qkv` is what [`norm_rope_store`](Self::norm_rope_store) left, of which only the queries are read; `out` is
    /// `[rows, heads.q_size()]`. Query head `h` attends with key/value head `h / (num_heads / num_kv_heads)`. What the
    /// cache holds at positions that no row sees may be anything, NaN included, and must not show. A device may round
    /// queries to Bf16 for a cache of that type.
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

    /// The gated activation of an MLP: `out = activation(x[:, :n]) * x[:, n:]`; `x` is `[rows, 2 n]`, `out` `[rows, n]`.
    fn activate_and_mul(&self, activation: Activation, x: &Self::Tensor, out: &mut Self::Tensor);

    /// The same where gates and values are in matrices of their own: `out = activation(gate) * values[:, column..column + n]`;
    /// `gate` and `out` are `[rows, n]`, `values` has as many rows and at least `column + n` columns.
    fn activate_and_mul_columns(
        &self,
        activation: Activation,
        gate: &Self::Tensor,
        values: &Self::Tensor,
        column: usize,
        out: &mut Self::Tensor,
    );

    /// Room for [`experts`](Self::experts) to work in, for at most `rows` rows of a mixture's input, each of which goes through
    /// `experts_per_row` experts. The default is for devices that use all of it.
    ///
    /// # Errors
    /// Those of [`tensor`](Self::tensor).
    fn expert_room(
        &self,
        rows: usize,
        experts_per_row: usize,
        hidden: usize,
        intermediate: usize,
    ) -> Result<ExpertRoom<Self::Tensor>>
    where
        Self: Sized,
    {
        ExpertRoom::new(self, rows.saturating_mul(experts_per_row), hidden, intermediate)
    }

    /// A mixture of experts: each row of `x` goes through the experts that `routing` chooses by its row of `logits`, and `out`
    /// is the sum of their outputs, each times its weight, in the order in which they were chosen. `x` and `out` are
    /// `[rows, hidden]`, `logits` are `[rows, experts]`, and `room` is from [`expert_room`](Self::expert_room) for at least as many
    /// rows. Products are as in
    /// [`linear`](Self::linear), gates as in [`activate_and_mul`](Self::activate_and_mul).
    fn experts(
        &self,
        x: &Self::Tensor,
        logits: &Self::Tensor,
        routing: &Routing<'_, Self::Tensor>,
        experts: &Experts<'_, Self::Weight, Self::Tensor>,
        room: &mut ExpertRoom<Self::Tensor>,
        out: &mut Self::Tensor,
    );

    /// `sum += x`; both are `[rows, cols]`.
    fn add(&self, x: &Self::Tensor, sum: &mut Self::Tensor);

    /// Multiplies each row of `x` by its factor in `by`, in place.
    fn scale(&self, x: &mut Self::Tensor, by: Scale<'_>);

    /// Bounds the values of `x`, in place: each becomes `cap * tanh(value / cap)`; `cap` is positive.
    fn soft_cap(&self, x: &mut Self::Tensor, cap: f32);

    /// `out[i] = x[rows[i]]`, in any order and with repetitions.
    fn gather_rows(&self, x: &Self::Tensor, rows: &[u32], out: &mut Self::Tensor);

    /// Chooses the next token after each row of `logits`, `[rows, vocab_size]`: `rows[i]` says how, `out[i]` is the
    /// token with how likely it is, and both are as long as there are rows. `logits` may be overwritten.
    ///
    /// The row's bias, penalties and mask are [applied](SampleRow::adjust) first. Of the tokens that its
    /// [truncation](SampleRow::truncation) leaves, it is then the one of the highest
    /// [score](crate::NoiseStream::score), `logit / temperature - ln(noise)`, or at temperature 0 that of the highest logit;
    /// the lowest id wins a tie. A NaN logit is never chosen unless every logit is NaN, which gives 0. How likely it is follows from
    /// the logits as they came ([`TokenLogprobs`](crate::TokenLogprobs)).
    /// [`SampleRow::choose`] says all of it in code: given the same logits every device must answer as it does.
    fn sample(&self, logits: &mut Self::Tensor, rows: &[SampleRow<'_>], out: &mut [Sampled]);

    /// Waits for the operations issued so far and reports the first that failed since the last call.
    ///
    /// Operations themselves return no errors, so that a device may queue them. Once one has failed, the device may skip
    /// those that follow until the failure is reported; what any of them should have written is unspecified, and the
    /// caller discards it. The default is for devices whose operations cannot fail.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device); [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}
