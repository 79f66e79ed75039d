//! nano-vLLM's models for Python: modules whose parts are Python's, run by [`nanovllm_model::models`] on a [`crate::device`].

mod faces;
pub(crate) mod qwen3;
mod step;
