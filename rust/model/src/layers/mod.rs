//! nano-vLLM's layers, under its names, over any backend.

pub mod activation;
pub(crate) mod attention;
pub(crate) mod embed_head;
pub(crate) mod layernorm;
pub(crate) mod linear;
pub(crate) mod rotary_embedding;
