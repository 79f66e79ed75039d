//! nano-vLLM's layers for Python: arrays in and out, the work done by [`nanovllm_model::layers`] on a [`crate::device`].

pub(crate) mod activation;
