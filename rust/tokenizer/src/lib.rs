//! Text to token ids and back.
//!
//! A [`Tokenizer`] comes from a Hugging Face directory (`tokenizer.json` and its companions) or is rebuilt from the
//! vocabulary inside a GGUF file; both give a `tokenizers::Tokenizer`, the special tokens, and the chat templates,
//! which [`Tokenizer::apply_chat_template`] renders as transformers does. A [`Detokenizer`] turns a stream of ids into
//! text without ever splitting a character.
//!
//! This crate knows no model, no device and no engine.

#![cfg_attr(test, allow(clippy::unwrap_used))] // tests

mod byte_level;
mod chat;
mod detokenizer;
mod directory;
mod error;
mod gguf;
mod gguf_export;
mod parts;
mod post_processor;
mod pre_tokenizer;
mod special;
mod tokenizer;

pub use chat::ChatOptions;
pub use detokenizer::Detokenizer;
pub use error::Error;
pub use tokenizer::Tokenizer;
