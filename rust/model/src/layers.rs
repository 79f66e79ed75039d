//! nano-vLLM's layers, under its names, over any backend.

pub mod activation;
pub mod attention;
pub mod embed_head;
pub mod layernorm;
pub mod linear;
pub mod rotary_embedding;
