//! Inputs of each layer beside the residual stream (Gemma 3n and 4).

use nanovllm_backend::{Activation, Backend, Error, Scale};

use crate::config::BaseConfig;
use crate::decoder::buffers::PerLayerBuffers;
use crate::error::Result;
use crate::layers::layernorm::RmsNorm;
use crate::layers::linear::{Linear, LinearSharding};
use crate::sharding::TpRank;
use crate::weights::{MappedMatrix, Weights};

/// What makes the inputs of all layers: a second embedding of the token, which stays in its file, and a projection of the
/// first.
pub(crate) struct PerLayerInputs<B: Backend> {
    /// `[tokens, layers * width]`; missing until the checkpoint that lacks it is refused.
    table: Option<MappedMatrix>,
    projection: Linear<B>,
    norm: RmsNorm<B>,
    /// The width of a layer's input.
    pub(super) width: usize,
    /// What the projection is multiplied by.
    projection_scale: f32,
}

impl<B: Backend> PerLayerInputs<B> {
    pub(crate) fn load(weights: &mut Weights<'_, B>, base: &BaseConfig, width: usize) -> Result<Self> {
        let (hidden, all) = (base.hidden_size, base.num_hidden_layers * width);
        let projection = LinearSharding::column_parallel(hidden, &[all], false, TpRank::SINGLE)?;
        Ok(Self {
            table: weights.mapped("model.embed_tokens_per_layer.weight", base.vocab_size, all)?,
            projection: Linear::load(weights, "model.per_layer_model_projection", projection)?,
            norm: RmsNorm::load(weights, "model.per_layer_projection_norm", width, base.rms_norm_eps)?,
            width,
            projection_scale: (hidden as f64).sqrt().recip() as f32,
        })
    }

    /// Fills `buffers.inputs` for rows of the tokens `ids`, whose embeddings `embedded`, `[rows, hidden]`, are.
    ///
    /// # Errors
    /// [`Error::Device`] where the table cannot be read any more.
    pub(super) fn forward(
        &self,
        backend: &B,
        ids: &[u32],
        embedded: &B::Tensor,
        buffers: &mut PerLayerBuffers<B>,
    ) -> std::result::Result<(), Error> {
        let PerLayerBuffers { inputs, projected, values, .. } = buffers;
        values.clear();
        if let Some(table) = &self.table {
            table.rows(ids, values).map_err(|e| Error::Device { device: "the host", reason: e.to_string() })?;
        }
        self.projection.forward(backend, embedded, inputs);
        backend.scale(inputs, Scale::All(self.projection_scale));
        self.norm.forward(backend, inputs, projected);
        backend.write(values, inputs);
        backend.scale(inputs, Scale::All((self.width as f64).sqrt() as f32));
        backend.add(projected, inputs);
        backend.scale(inputs, Scale::All(std::f32::consts::FRAC_1_SQRT_2));
        Ok(())
    }
}

/// What a layer does with its input: the stream gates it, and what passes is projected and normed.
pub(crate) struct PerLayerGate<B: Backend> {
    gate: Linear<B>,
    projection: Linear<B>,
    norm: RmsNorm<B>,
    activation: Activation,
    /// The column of the inputs at which the layer's begin.
    column: usize,
}

impl<B: Backend> PerLayerGate<B> {
    /// Loads the gate of layer `layer`, whose names begin with `prefix` and whose input is `width` wide.
    pub(crate) fn load(
        weights: &mut Weights<'_, B>,
        prefix: &str,
        base: &BaseConfig,
        layer: usize,
        width: usize,
        activation: Activation,
    ) -> Result<Self> {
        let linear =
            |inputs, outputs: usize| LinearSharding::column_parallel(inputs, &[outputs], false, TpRank::SINGLE);
        let (gate, projection) = (linear(base.hidden_size, width)?, linear(width, base.hidden_size)?);
        let norm = format!("{prefix}.post_per_layer_input_norm");
        Ok(Self {
            gate: Linear::load(weights, &format!("{prefix}.per_layer_input_gate"), gate)?,
            projection: Linear::load(weights, &format!("{prefix}.per_layer_projection"), projection)?,
            norm: RmsNorm::load(weights, &norm, base.hidden_size, base.rms_norm_eps)?,
            activation,
            column: layer * width,
        })
    }

    /// From the stream, `[rows, hidden]`, to what is to be added to it, `out`; `room` is of the same shape.
    pub(crate) fn forward(
        &self,
        backend: &B,
        stream: &B::Tensor,
        buffers: &mut PerLayerBuffers<B>,
        room: &mut B::Tensor,
        out: &mut B::Tensor,
    ) {
        let PerLayerBuffers { inputs, gate, gated, .. } = buffers;
        self.gate.forward(backend, stream, gate);
        backend.activate_and_mul_columns(self.activation, gate, inputs, self.column, gated);
        self.projection.forward(backend, gated, room);
        self.norm.forward(backend, room, out);
    }
}
