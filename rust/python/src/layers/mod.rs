//! nano-vLLM's layers for Python: arrays in and out, the work done by [`nanovllm_model::layers`] on a [`crate::device`].

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod layernorm;
mod paged;
pub(crate) mod rotary_embedding;
pub(crate) mod sampler;

use std::sync::Arc;

use nanovllm_backend::Backend;

use crate::guarded::Guarded;

/// A layer with the device that holds its parameters.
struct Placed<B: Backend, L> {
    device: Arc<Guarded<B>>,
    layer: L,
}
