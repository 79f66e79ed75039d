//! The models there is code for: a file a family, and the registry with a row for each.

#[macro_use]
mod families;
pub(crate) mod family_config;
pub mod gemma3;
pub mod gemma4;
pub mod gpt_oss;
pub mod granite;
pub mod granite4;
pub mod granite_moe;
pub mod llama;
pub mod ministral3;
pub mod mistral;
pub mod phi3;
pub mod qwen2;
pub mod qwen3;
pub mod qwen3_moe;
pub(crate) mod registry;
pub mod smollm3;
pub(crate) mod tensor_table;
