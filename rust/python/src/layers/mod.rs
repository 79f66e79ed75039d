//! nano-vLLM's layers for Python: arrays in and out, the work done by [`nanovllm_model::layers`] on a [`crate::device`].

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod embed_head;
pub(crate) mod layernorm;
pub(crate) mod linear;
pub(crate) mod paged;
pub(crate) mod parameter;
pub(crate) mod rotary_embedding;
pub(crate) mod sampler;

use std::sync::Arc;

use nanovllm_backend::Backend;

use crate::guarded::Guarded;

/// A layer with the device that holds its parameters.
pub(crate) struct Placed<B: Backend, L> {
    pub(crate) device: Arc<Guarded<B>>,
    pub(crate) layer: L,
}
