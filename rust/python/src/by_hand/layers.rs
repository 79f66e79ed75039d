//! nano-vLLM's layers for Python. They take and give arrays; the work is done by [`nanovllm_model::layers`] on a
//! [`crate::device`].

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod embed_head;
pub(crate) mod layernorm;
pub(crate) mod linear;
pub(crate) mod paged;
pub(crate) mod parameter;
pub(crate) mod rotary_embedding;
pub(crate) mod sampler;
