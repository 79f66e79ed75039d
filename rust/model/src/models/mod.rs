//! The models there is code for.

pub(crate) mod qwen3;
