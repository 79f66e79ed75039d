//! The target for chat templates: a template's source, and after a NUL the messages as JSON, if there are any.

use std::sync::OnceLock;

use nanovllm_gguf::{Array, Metadata, Value};
use nanovllm_tokenizer::{ChatOptions, Error, Tokenizer};

/// Renders the template.
///
/// # Errors
/// What is wrong with the template, or the limit that it reaches.
///
/// # Panics
/// Where the tokenizer, which is always the same, cannot be made.
pub fn run(data: &[u8]) -> Result<(), Error> {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    let tokenizer = TOKENIZER.get_or_init(tokenizer);
    let mut parts = data.splitn(2, |&byte| byte == 0);
    let template = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let messages = parts.next().and_then(|json| serde_json::from_slice(json).ok());
    let options = ChatOptions { add_generation_prompt: true, template: Some(template), ..ChatOptions::default() };
    let messages = messages.unwrap_or_else(|| serde_json::json!([{"role": "user", "content": "Hi"}]));
    tokenizer.apply_chat_template(&messages, &options).map(drop)
}

fn tokenizer() -> Tokenizer {
    let mut vocabulary = Metadata::default();
    vocabulary.set("tokenizer.ggml.model", Value::String("gpt2".to_owned()));
    vocabulary.set("tokenizer.ggml.pre", Value::String("gpt-2".to_owned()));
    vocabulary.set("tokenizer.ggml.tokens", Value::Array(Array::String(vec!["a".to_owned()])));
    vocabulary.set("tokenizer.ggml.merges", Value::Array(Array::String(Vec::new())));
    Tokenizer::from_gguf(&vocabulary).expect("a vocabulary of one token")
}
