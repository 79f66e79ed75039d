//! The buffers for the activations of one slice, allocated once at load and used by every layer in turn.

use nanovllm_backend::{Backend, HeadLayout, Result};

/// The buffers of self-attention.
pub struct AttentionBuffers<B: Backend> {
    /// Queries, keys and values, `[rows, q + k + v]`.
    pub(super) qkv: B::Tensor,
    /// What attention gives, `[rows, q]`.
    pub(super) attention: B::Tensor,
    /// What rows of queries are multiplied by, `[rows]`; empty until a layer does so.
    pub(super) factors: Vec<f32>,
}

impl<B: Backend> AttentionBuffers<B> {
    /// Buffers for at most `rows` rows at a time.
    ///
    /// # Errors
    /// [`nanovllm_backend::Error::OutOfMemory`].
    pub fn new(backend: &B, heads: &HeadLayout, rows: usize) -> Result<Self> {
        Ok(Self {
            qkv: backend.tensor(rows, heads.qkv_size())?,
            attention: backend.tensor(rows, heads.q_size())?,
            factors: Vec::new(),
        })
    }
}

/// The buffers of an MLP.
pub struct MlpBuffers<B: Backend> {
    /// Gates and values, `[rows, 2 intermediate]`.
    pub(super) gate_up: B::Tensor,
    /// Their activation, `[rows, intermediate]`.
    pub(super) activation: B::Tensor,
}

impl<B: Backend> MlpBuffers<B> {
    /// Buffers for at most `rows` rows at a time.
    ///
    /// # Errors
    /// [`nanovllm_backend::Error::OutOfMemory`].
    pub fn new(backend: &B, intermediate_size: usize, rows: usize) -> Result<Self> {
        Ok(Self {
            gate_up: backend.tensor(rows, 2 * intermediate_size)?,
            activation: backend.tensor(rows, intermediate_size)?,
        })
    }
}

/// The buffers of a decoder layer; `hidden` and `residual` carry activations from one layer to the next.
pub struct Buffers<B: Backend> {
    /// The input of attention or of the MLP, `[rows, hidden]`.
    pub(super) normed: B::Tensor,
    /// The output of attention or of the MLP, not yet added to the residual stream, `[rows, hidden]`.
    pub hidden: B::Tensor,
    /// The residual stream, `[rows, hidden]`.
    pub residual: B::Tensor,
    pub(super) attention: AttentionBuffers<B>,
    pub(super) mlp: MlpBuffers<B>,
}

impl<B: Backend> Buffers<B> {
    /// Buffers for slices of at most `rows` rows.
    ///
    /// # Errors
    /// [`nanovllm_backend::Error::OutOfMemory`].
    pub fn new(
        backend: &B,
        hidden_size: usize,
        intermediate_size: usize,
        heads: &HeadLayout,
        rows: usize,
    ) -> Result<Self> {
        Ok(Self {
            normed: backend.tensor(rows, hidden_size)?,
            hidden: backend.tensor(rows, hidden_size)?,
            residual: backend.tensor(rows, hidden_size)?,
            attention: AttentionBuffers::new(backend, heads, rows)?,
            mlp: MlpBuffers::new(backend, intermediate_size, rows)?,
        })
    }
}

/// The buffers for the rows that need logits.
pub(super) struct HeadBuffers<B: Backend> {
    pub(super) hidden: B::Tensor,
    pub(super) residual: B::Tensor,
    pub(super) normed: B::Tensor,
    pub(super) logits: B::Tensor,
}

impl<B: Backend> HeadBuffers<B> {
    /// Buffers for at most `rows` rows at a time.
    pub(super) fn new(backend: &B, hidden_size: usize, vocab_size: usize, rows: usize) -> Result<Self> {
        Ok(Self {
            hidden: backend.tensor(rows, hidden_size)?,
            residual: backend.tensor(rows, hidden_size)?,
            normed: backend.tensor(rows, hidden_size)?,
            logits: backend.tensor(rows, vocab_size)?,
        })
    }
}
