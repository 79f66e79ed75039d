//! nano-vLLM's models for Python. A module's parts are attributes that Python can replace; it is run by
//! [`nanovllm_model::models`] on a [`crate::device`].

mod faces;
mod forward_pass;
pub(crate) mod qwen3;
