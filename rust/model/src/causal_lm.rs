//! What the engine sees of a model: one virtual call a step.

use nanovllm_backend::{DType, Error, KvCacheSpec, Memory, SampleRow};

/// The ragged batch of one step, as nano-vLLM's `prepare_prefill` and `prepare_decode` describe it.
///
/// Sequence `s` brings rows `cu_seqlens_q[s]..cu_seqlens_q[s + 1]`; after the step it has `context_lens[s]` tokens in the
/// cache. A decode step is the case of one row a sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelInput {
    /// Token ids, `[rows]`.
    pub input_ids: Vec<u32>,
    /// Position of each row in its sequence, `[rows]`.
    pub positions: Vec<u32>,
    /// Row offsets, `[num_seqs + 1]`.
    pub cu_seqlens_q: Vec<u32>,
    /// Tokens in the cache once the step is stored, `[num_seqs]`.
    pub context_lens: Vec<u32>,
    /// Cache slot of each row, `[rows]`; -1 stores nothing, the others are distinct.
    pub slot_mapping: Vec<i32>,
    /// Blocks of each sequence, `[num_seqs, table_stride]`, padded with -1.
    pub block_tables: Vec<i32>,
    /// Entries in a row of `block_tables`.
    pub table_stride: usize,
}

impl ModelInput {
    /// Number of sequences.
    pub fn num_seqs(&self) -> usize {
        self.context_lens.len()
    }

    /// Number of rows.
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

/// A causal language model on a device, with its cache.
pub trait CausalLm: Send {
    /// Tokens in the vocabulary; ids are below it.
    fn vocab_size(&self) -> usize;

    /// Longest sequence it has positions for, in tokens: what it was loaded for, within the model's own limit.
    fn max_model_len(&self) -> usize;

    /// A description for logs: architecture, device, instruction set, threads.
    fn describe(&self) -> String;

    /// The memory of its device, now; `None` for a device that computes in the host's, or cannot tell.
    fn memory(&self) -> Option<Memory> {
        None
    }

    /// What a user should know of how the weights were loaded, one line each.
    fn notes(&self) -> &[String] {
        &[]
    }

    /// The cache of `num_blocks` blocks of `block_size` tokens, layer by layer; `dtype` F32 or Bf16, or the model's own choice.
    fn kv_cache_spec(&self, num_blocks: usize, block_size: usize, dtype: Option<DType>) -> KvCacheSpec;

    /// Allocates the cache, replacing an earlier one.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::UnsupportedDType`].
    fn allocate_kv_cache(&mut self, spec: &KvCacheSpec) -> Result<(), Error>;

    /// Runs one step and chooses a token for each of some of its rows.
    ///
    /// `rows` ascends; `plan[i]` says how the token after row `rows[i]` is chosen. The rows are usually the last of sequences whose
    /// prompt this step finishes, but may stand anywhere in a sequence and be several of one. The result has a token for
    /// each, in order. The step runs in slices of at most 512 rows; `interrupted` is asked between two slices.
    ///
    /// # Errors
    /// [`StepError::Interrupted`], after which the cache rows of this step are undefined; [`StepError::Backend`].
    fn step(
        &mut self,
        input: &ModelInput,
        rows: &[u32],
        plan: &[SampleRow<'_>],
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<u32>, StepError>;

    /// Runs one step and appends the f32 logits of some of its rows to `out`, `[rows.len(), vocab_size]`; `rows` ascends.
    ///
    /// # Errors
    /// As [`step`](Self::step); `out` then holds the rows of the slices that were done.
    fn logits(
        &mut self,
        input: &ModelInput,
        rows: &[u32],
        out: &mut Vec<f32>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), StepError>;
}
