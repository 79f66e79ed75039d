//! The buffers for the activations of one slice, allocated once at load and used by every layer in turn.

use nanovllm_backend::{Backend, ExpertRoom, Result};

/// The widths of what a layer works in, in which layers of one model may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerSizes {
    /// Of a row of queries, keys and values.
    pub qkv: usize,
    /// Of a row of queries.
    pub q: usize,
    /// Of the MLP.
    pub mlp: MlpSizes,
}

/// The widths of what an MLP works in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MlpSizes {
    /// Between the projections of what is not made of experts; 0 where nothing is.
    pub intermediate: usize,
    /// Those of experts, if there are any.
    pub experts: Option<ExpertSizes>,
}

/// The widths of what a mixture of experts works in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertSizes {
    /// How many experts there are.
    pub experts: usize,
    /// How many each row goes through.
    pub experts_per_row: usize,
    /// Of their inputs and outputs.
    pub hidden: usize,
    /// Between the projections of each.
    pub intermediate: usize,
}

/// The buffers of self-attention.
pub struct AttentionBuffers<B: Backend> {
    /// Their widths, those of `qkv` and of `attention`.
    sizes: (usize, usize),
    /// Queries, keys and values, `[rows, qkv]`.
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
    pub fn new(backend: &B, qkv: usize, q: usize, rows: usize) -> Result<Self> {
        Ok(Self {
            sizes: (qkv, q),
            qkv: backend.tensor(rows, qkv)?,
            attention: backend.tensor(rows, q)?,
            factors: Vec::new(),
        })
    }
}

/// The buffers of an MLP.
pub struct MlpBuffers<B: Backend> {
    sizes: MlpSizes,
    /// Gates and values, `[rows, 2 intermediate]`.
    pub(super) gate_up: B::Tensor,
    /// Their activation, `[rows, intermediate]`.
    pub(super) activation: B::Tensor,
    /// Those of experts, if there are any.
    pub(super) experts: Option<ExpertBuffers<B>>,
}

/// The buffers of a mixture of experts.
pub(super) struct ExpertBuffers<B: Backend> {
    /// The router's, `[rows, experts]`.
    pub(super) logits: B::Tensor,
    pub(super) room: ExpertRoom<B::Tensor>,
    /// Rows beside those that an MLP is given and gives, `[rows, hidden]`; of no width where nothing is computed beside the
    /// experts.
    pub(super) beside: B::Tensor,
}

impl<B: Backend> MlpBuffers<B> {
    /// Buffers for at most `rows` rows at a time.
    ///
    /// # Errors
    /// [`nanovllm_backend::Error::OutOfMemory`].
    pub fn new(backend: &B, sizes: MlpSizes, rows: usize) -> Result<Self> {
        let beside = sizes.intermediate;
        let experts = |sizes: ExpertSizes| {
            let ExpertSizes { experts, experts_per_row, hidden, intermediate } = sizes;
            Ok(ExpertBuffers {
                logits: backend.tensor(rows, experts)?,
                room: backend.expert_room(rows, experts_per_row, hidden, intermediate)?,
                beside: backend.tensor(rows, if beside > 0 { hidden } else { 0 })?,
            })
        };
        Ok(Self {
            sizes,
            gate_up: backend.tensor(rows, 2 * sizes.intermediate)?,
            activation: backend.tensor(rows, sizes.intermediate)?,
            experts: sizes.experts.map(experts).transpose()?,
        })
    }
}

/// The buffers of a decoder layer; `hidden` and `residual` carry activations from one layer to the next.
pub struct Buffers<B: Backend> {
    /// The input of attention or of the MLP, `[rows, hidden]`.
    pub(crate) normed: B::Tensor,
    /// The output of attention or of the MLP, not yet added to the residual stream, `[rows, hidden]`.
    pub hidden: B::Tensor,
    /// The residual stream, `[rows, hidden]`.
    pub residual: B::Tensor,
    pub(super) layers: LayerBuffers<B>,
    /// What layers are given beside the stream, in families whose layers are given something.
    pub(crate) per_layer: Option<PerLayerBuffers<B>>,
}

/// The buffers within a layer, for each of the widths that layers have.
pub(super) struct LayerBuffers<B: Backend> {
    attention: Vec<AttentionBuffers<B>>,
    mlp: Vec<MlpBuffers<B>>,
}

impl<B: Backend> LayerBuffers<B> {
    fn new(backend: &B, layers: &[LayerSizes], rows: usize) -> Result<Self> {
        let mut buffers = Self { attention: Vec::new(), mlp: Vec::new() };
        for &LayerSizes { qkv, q, mlp } in layers {
            if !buffers.attention.iter().any(|buffer| buffer.sizes == (qkv, q)) {
                buffers.attention.push(AttentionBuffers::new(backend, qkv, q, rows)?);
            }
            if !buffers.mlp.iter().any(|buffer| buffer.sizes == mlp) {
                buffers.mlp.push(MlpBuffers::new(backend, mlp, rows)?);
            }
        }
        Ok(buffers)
    }

    /// The buffers of a layer of these widths, which is one of those that they were made for.
    pub(super) fn of(&mut self, sizes: LayerSizes) -> (&mut AttentionBuffers<B>, &mut MlpBuffers<B>) {
        let attention = self.attention.iter().position(|buffer| buffer.sizes == (sizes.qkv, sizes.q));
        let mlp = self.mlp.iter().position(|buffer| buffer.sizes == sizes.mlp);
        (&mut self.attention[attention.unwrap_or(0)], &mut self.mlp[mlp.unwrap_or(0)])
    }
}

/// The buffers for what layers are given beside the stream.
pub(crate) struct PerLayerBuffers<B: Backend> {
    /// What the layers are given, those of each in turn, `[rows, layers * width]`.
    pub(super) inputs: B::Tensor,
    /// A part of them while they are put together, of the same shape.
    pub(super) projected: B::Tensor,
    /// A layer's gates, `[rows, width]`.
    pub(super) gate: B::Tensor,
    /// What passes the gates, `[rows, width]`.
    pub(super) gated: B::Tensor,
    /// Rows of a table on the host.
    pub(super) values: Vec<f32>,
}

impl<B: Backend> PerLayerBuffers<B> {
    pub(super) fn new(backend: &B, layers: usize, width: usize, rows: usize) -> Result<Self> {
        Ok(Self {
            inputs: backend.tensor(rows, layers * width)?,
            projected: backend.tensor(rows, layers * width)?,
            gate: backend.tensor(rows, width)?,
            gated: backend.tensor(rows, width)?,
            values: Vec::new(),
        })
    }
}

impl<B: Backend> Buffers<B> {
    /// Buffers for slices of at most `rows` rows, and layers of these widths.
    ///
    /// # Errors
    /// [`nanovllm_backend::Error::OutOfMemory`].
    pub fn new(backend: &B, hidden_size: usize, layers: &[LayerSizes], rows: usize) -> Result<Self> {
        Ok(Self {
            normed: backend.tensor(rows, hidden_size)?,
            hidden: backend.tensor(rows, hidden_size)?,
            residual: backend.tensor(rows, hidden_size)?,
            layers: LayerBuffers::new(backend, layers, rows)?,
            per_layer: None,
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
