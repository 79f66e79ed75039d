//! What the engine sees of a model: one virtual call a step.

use nanovllm_backend::{BlockCopy, DType, Error, KvCacheSpec, Memory, SampleRow, Sampled};

/// The ragged batch of one step, as nano-vLLM's `prepare_prefill` and `prepare_decode` describe it.
///
/// Rows `cu_seqlens_q[s]..cu_seqlens_q[s + 1]` are consecutive tokens of sequence `s`, which has `context_lens[s]`
/// tokens in the cache after the step. A decode step is the case of one row a sequence. Whoever makes it has checked
/// it: a model trusts that ids are below its `vocab_size` and that slots and blocks are those of its cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelInput {
    /// The token of each row, `[rows]`.
    pub input_ids: Vec<u32>,
    /// Position of each row in its sequence, from 0, `[rows]`.
    pub positions: Vec<u32>,
    /// Where each sequence's rows begin and the last one's end, `[num_seqs + 1]`, starting at 0.
    pub cu_seqlens_q: Vec<u32>,
    /// Tokens of each sequence in the cache once the step is stored, `[num_seqs]`.
    pub context_lens: Vec<u32>,
    /// Cache slot of each row (`block * block_size + offset`), `[rows]`; -1 stores nothing, the others are distinct.
    pub slot_mapping: Vec<i32>,
    /// Block table of each sequence, `[num_seqs, table_stride]`, padded with -1.
    pub block_tables: Vec<i32>,
    /// Entries in each of `block_tables`, padding included.
    pub table_stride: usize,
}

impl ModelInput {
    /// Sequences in the batch.
    pub fn num_seqs(&self) -> usize {
        self.context_lens.len()
    }

    /// Rows of all sequences together.
    pub fn num_rows(&self) -> usize {
        self.input_ids.len()
    }

    /// The last row of each sequence.
    pub fn last_rows(&self) -> Vec<u32> {
        self.cu_seqlens_q.iter().skip(1).map(|end| end.saturating_sub(1)).collect()
    }
}

/// Why a step did not finish.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The interrupt callback asked to stop between two slices.
    #[error("interrupted")]
    Interrupted,
    /// The device failed.
    #[error(transparent)]
    Backend(#[from] Error),
}

/// A causal language model on a device, with its KV cache.
pub trait CausalLm: Send {
    /// Size of the vocabulary: every token id is below it.
    fn vocab_size(&self) -> usize;

    /// Width of a hidden state.
    fn hidden_size(&self) -> usize;

    /// The longest sequence it computes, in tokens: what it was loaded for, within the limit of the checkpoint.
    fn max_model_len(&self) -> usize;

    /// A description for logs: architecture, device, instruction set, threads.
    fn describe(&self) -> String;

    /// How much memory its device has, and how much is in use now; `None` for a device that computes in the host's, or
    /// cannot tell.
    fn memory(&self) -> Option<Memory> {
        None
    }

    /// What a user should know of how the weights were loaded, such as types that the device stores as others; one line
    /// each.
    fn notes(&self) -> &[String] {
        &[]
    }

    /// The KV cache of `num_blocks` blocks of `block_size` tokens that the model needs, to be handed to
    /// [`allocate_kv_cache`](Self::allocate_kv_cache). `dtype` is F32 or Bf16; without one it is F32 for a checkpoint
    /// whose matrices are F32, else Bf16.
    fn kv_cache_spec(&self, num_blocks: usize, block_size: usize, dtype: Option<DType>) -> KvCacheSpec;

    /// Allocates the KV cache, freeing an earlier one first. No step can run before.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::UnsupportedDType`]; those of [`KvCacheSpec::check`]. There is then no cache.
    fn allocate_kv_cache(&mut self, spec: &KvCacheSpec) -> Result<(), Error>;

    /// Copies tokens from block to block of the cache, one copy after another, before the next step.
    ///
    /// # Errors
    /// [`Error`] when the device failed; what the blocks hold that were to get tokens is then undefined.
    fn copy_blocks(&mut self, copies: &[BlockCopy]) -> Result<(), Error>;

    /// Runs one step and chooses the token that follows each of `rows`: one a row, in their order.
    ///
    /// `rows` ascends, where a row may come several times, and `sampling[i]` says how the token after row `rows[i]` is chosen. These rows are usually the
    /// last of sequences whose prompt is complete with this step, but may stand anywhere in a sequence and be several
    /// of one. The step runs in slices of [`SLICE_ROWS`](crate::SLICE_ROWS) rows, the last of what is left; between two of
    /// them `interrupted` is asked once whether to stop.
    ///
    /// # Errors
    /// [`StepError::Interrupted`]; [`StepError::Backend`], also when a sequence is longer than
    /// [`max_model_len`](Self::max_model_len). What the cache holds in the step's slots is then undefined.
    fn step(
        &mut self,
        input: &ModelInput,
        rows: &[u32],
        sampling: &[SampleRow<'_>],
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Sampled>, StepError>;

    /// Runs one step as [`step`](Self::step) does, but appends the logits of `rows`, which ascend, to `out`:
    /// `[rows.len(), vocab_size]` in f32.
    ///
    /// # Errors
    /// Those of [`step`](Self::step); `out` then holds the rows of the slices that were finished.
    fn logits(
        &mut self,
        input: &ModelInput,
        rows: &[u32],
        out: &mut Vec<f32>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), StepError>;

    /// Runs one step as [`step`](Self::step) does, but hands out the hidden states of `rows`, which ascend: `take` is given them in
    /// order, some at a time, `[count, hidden_size]` in f32, after the norm that follows the last layer.
    ///
    /// # Errors
    /// Those of [`step`](Self::step); `take` has then been given the rows of the slices that were finished.
    fn hidden_states(
        &mut self,
        input: &ModelInput,
        rows: &[u32],
        take: &mut dyn FnMut(&[f32]),
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), StepError>;
}
