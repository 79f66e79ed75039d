//! Text to token ids and back.
//!
//! ```
//! use nanovllm_gguf::{Array, Metadata, Value};
//! use nanovllm_tokenizer::Tokenizer;
//!
//! let strings = |list: &[&str]| Value::Array(Array::String(list.iter().map(ToString::to_string).collect()));
//! let mut vocabulary = Metadata::default();
//! vocabulary.set("tokenizer.ggml.model", Value::String("gpt2".to_owned()));
//! vocabulary.set("tokenizer.ggml.pre", Value::String("gpt-2".to_owned()));
//! vocabulary.set("tokenizer.ggml.tokens", strings(&["h", "i", "hi", "Ġ"])); // `Ġ` stands for a space
//! vocabulary.set("tokenizer.ggml.merges", strings(&["h i"]));
//!
//! let tokenizer = Tokenizer::from_gguf(&vocabulary)?; // `from_dir` loads a Hugging Face directory
//! assert_eq!(tokenizer.encode("hi hi", true)?, [2, 3, 2]);
//! assert_eq!(tokenizer.decode(&[2, 3, 2], false)?, "hi hi");
//! # Ok::<(), nanovllm_tokenizer::Error>(())
//! ```
//!
//! A [`Tokenizer`] comes from a Hugging Face directory (`tokenizer.json` and its companions) or is rebuilt from the
//! vocabulary inside a GGUF file; both give a `tokenizers::Tokenizer`, the special tokens, and the chat templates,
//! which [`Tokenizer::apply_chat_template`] renders as transformers does. A [`Detokenizer`] turns a stream of ids into
//! text without ever splitting a character.
//!
//! This crate knows no model, no device and no engine.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test that unwraps fails as it should

mod byte_level;
mod chat;
mod detokenizer;
mod directory;
mod encode;
mod error;
mod gguf;
mod gguf_export;
mod library;
mod parts;
mod post_processor;
mod pre_tokenizer;
mod settings;
mod special;
mod state;
mod tokenizer;

pub use chat::ChatOptions;
pub use detokenizer::Detokenizer;
pub use encode::{Cut, Encoded, Truncation};
pub use error::Error;
pub use gguf_export::GgufTokenizer;
pub use settings::{Settings, Side};
pub use tokenizer::Tokenizer;
