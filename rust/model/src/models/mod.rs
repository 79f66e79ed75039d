//! The models there is code for.

mod buffers;
pub mod qwen3;

pub(crate) use buffers::HeadBuffers;
pub use buffers::{AttentionBuffers, Buffers, MlpBuffers};
