//! A stack of layers between the embedding and the output projection.

use nanovllm_backend::Backend;

use crate::config::{BaseConfig, RopeConfig};
use crate::decoder::buffers::{Buffers, HeadBuffers, LayerSizes, PerLayerBuffers};
use crate::decoder::contract::{Decoder, DecoderLayer, HEAD_ROWS};
use crate::decoder::multiply::multiply;
use crate::decoder::per_layer::PerLayerInputs;
use crate::decoder::pre_norm::PreNormLayer;
use crate::error::Result;
use crate::layers::embed_head::{ParallelLmHead, VocabParallelEmbedding};
use crate::layers::layernorm::RmsNorm;
use crate::layers::rotary_embedding::RotaryEmbedding;
use crate::slices::{SLICE_ROWS, Slice};
use crate::weights::Weights;

/// The decoder without its output projection.
pub struct Transformer<B: Backend, L = PreNormLayer<B>> {
    /// Token ids to the residual stream.
    pub embed_tokens: VocabParallelEmbedding<B>,
    /// What embeddings are multiplied by; 1 in most families.
    pub embedding_multiplier: f32,
    /// The layers, in the order in which they run.
    pub layers: Vec<L>,
    /// The norm between the last layer and the output projection.
    pub norm: RmsNorm<B>,
}

impl<B: Backend, L: DecoderLayer<B>> Transformer<B, L> {
    /// Runs the layers over a slice. `buffers.hidden` and `buffers.residual` then wait for the [`norm`](Self::norm), which
    /// only the rows that need logits go through.
    pub fn forward(
        &self,
        backend: &B,
        ropes: &[RotaryEmbedding<B>],
        slice: &Slice<'_>,
        cache: &mut B::KvCache,
        buffers: &mut Buffers<B>,
    ) {
        self.embed(backend, slice, buffers);
        self.run_layers(backend, ropes, slice, cache, buffers);
    }

    /// Fills `buffers.residual` with the embeddings of a slice's tokens.
    fn embed(&self, backend: &B, slice: &Slice<'_>, buffers: &mut Buffers<B>) {
        self.embed_tokens.forward(backend, slice.input_ids, &mut buffers.residual);
        multiply(backend, &mut buffers.residual, self.embedding_multiplier);
    }

    /// Runs the layers over the embeddings that [`embed`](Self::embed) left.
    fn run_layers(
        &self,
        backend: &B,
        ropes: &[RotaryEmbedding<B>],
        slice: &Slice<'_>,
        cache: &mut B::KvCache,
        buffers: &mut Buffers<B>,
    ) {
        for (i, layer) in self.layers.iter().enumerate() {
            layer.forward(backend, i == 0, ropes, slice, cache, buffers);
        }
    }
}

/// A decoder that is a stack of layers, with its output projection, tables and buffers.
pub(crate) struct Stack<B: Backend, L> {
    model: Transformer<B, L>,
    lm_head: ParallelLmHead<B>,
    /// A table for each kind of rotary embedding that layers have; a layer's
    /// [`Attention`](crate::layers::attention::Attention) says which is its own.
    ropes: Vec<RotaryEmbedding<B>>,
    /// What logits are multiplied by; 1 in most families.
    logits_multiplier: f32,
    /// The bound of logits, if they have one.
    logits_cap: Option<f32>,
    /// What makes the inputs that layers are given beside the stream, where they are.
    per_layer: Option<PerLayerInputs<B>>,
    buffers: Buffers<B>,
    head: HeadBuffers<B>,
}

impl<B: Backend, L: DecoderLayer<B>> Stack<B, L> {
    /// Takes every parameter from `weights`; `layer` takes those of the layer whose number and prefix it is given. The
    /// rotary tables are those of `ropes`, in order, for `positions` positions and whole heads.
    pub(crate) fn load(
        base: &BaseConfig,
        weights: &mut Weights<'_, B>,
        ropes: &[&RopeConfig],
        positions: usize,
        layer: impl Fn(&mut Weights<'_, B>, usize, &str) -> Result<L>,
    ) -> Result<Self> {
        let (vocab, hidden) = (base.vocab_size, base.hidden_size);
        let embed_tokens = VocabParallelEmbedding::load(weights, "model.embed_tokens", vocab, hidden)?;
        let lm_head = if base.tie_word_embeddings {
            // Some checkpoints store the tied copy too.
            weights.ignore("lm_head.weight");
            ParallelLmHead::tied(&embed_tokens)
        } else {
            ParallelLmHead::load(weights, "lm_head", vocab, hidden)?
        };
        let layers = (0..base.num_hidden_layers).map(|i| layer(weights, i, &format!("model.layers.{i}")));
        let layers = layers.collect::<Result<Vec<L>>>()?;
        let sizes: Vec<LayerSizes> = layers.iter().map(DecoderLayer::sizes).collect();
        let norm = RmsNorm::load(weights, "model.norm", hidden, base.rms_norm_eps)?;
        weights.finish()?;
        let backend = weights.backend;
        let table = |rope: &&RopeConfig| RotaryEmbedding::new(backend, rope, base.head_dim, positions);
        Ok(Self {
            model: Transformer { embed_tokens, embedding_multiplier: 1.0, layers, norm },
            lm_head,
            ropes: ropes.iter().map(table).collect::<Result<_>>()?,
            logits_multiplier: 1.0,
            logits_cap: None,
            buffers: Buffers::new(backend, hidden, &sizes, SLICE_ROWS)?,
            per_layer: None,
            head: HeadBuffers::new(backend, hidden, vocab, HEAD_ROWS)?,
        })
    }

    /// The same decoder, which multiplies embeddings by `embedding` and logits by `logits`.
    pub(crate) fn multiplied(mut self, embedding: f32, logits: f32) -> Self {
        self.model.embedding_multiplier = embedding;
        self.logits_multiplier = logits;
        self
    }

    /// The same decoder, whose layers are given inputs of their own.
    ///
    /// # Errors
    /// [`LoadError::Backend`](crate::LoadError::Backend) when the device cannot hold them.
    pub(crate) fn with_per_layer(mut self, backend: &B, inputs: Option<PerLayerInputs<B>>) -> Result<Self> {
        if let Some(inputs) = &inputs {
            let buffers = PerLayerBuffers::new(backend, self.model.layers.len(), inputs.width, SLICE_ROWS)?;
            self.buffers.per_layer = Some(buffers);
        }
        self.per_layer = inputs;
        Ok(self)
    }

    /// The same decoder, whose logits are bounded by `cap`.
    pub(crate) fn capped(mut self, cap: Option<f32>) -> Self {
        self.logits_cap = cap;
        self
    }
}

impl<B: Backend, L: DecoderLayer<B>> Decoder<B> for Stack<B, L> {
    fn forward(
        &mut self,
        backend: &B,
        slice: &Slice<'_>,
        cache: &mut B::KvCache,
    ) -> std::result::Result<(), nanovllm_backend::Error> {
        let buffers = &mut self.buffers;
        self.model.embed(backend, slice, buffers);
        if let (Some(inputs), Some(room)) = (&self.per_layer, &mut buffers.per_layer) {
            inputs.forward(backend, slice.input_ids, &buffers.residual, room)?;
        }
        self.model.run_layers(backend, &self.ropes, slice, cache, buffers);
        Ok(())
    }

    fn hidden_states(&mut self, backend: &B, rows: &[u32]) -> &B::Tensor {
        let HeadBuffers { hidden, residual, normed, .. } = &mut self.head;
        backend.gather_rows(&self.buffers.hidden, rows, hidden);
        backend.gather_rows(&self.buffers.residual, rows, residual);
        self.model.norm.add_forward(backend, hidden, residual, normed);
        normed
    }

    fn logits(&mut self, backend: &B, rows: &[u32]) -> &mut B::Tensor {
        self.hidden_states(backend, rows);
        let HeadBuffers { normed, logits, .. } = &mut self.head;
        self.lm_head.forward(backend, normed, logits);
        multiply(backend, logits, self.logits_multiplier);
        if let Some(cap) = self.logits_cap {
            backend.soft_cap(logits, cap);
        }
        logits
    }
}
