//! The hand-made part of the corpus: one small file for each way a file can be wrong, and some that are right.

mod chat_template;
mod config;
mod gguf;
mod safetensors;
mod tokenizer_directory;
mod tokenizer_gguf;

use nanovllm_gguf::Value;

use crate::common::Builder;

/// A file of the corpus.
pub(crate) struct Seed {
    /// `KIND-what_is_wrong`, KIND being the error's variant, or `ok-what_it_is`.
    pub(crate) name: String,
    /// Words of the error's text; empty for a file that is right.
    pub(crate) says: String,
    pub(crate) bytes: Vec<u8>,
}

fn seed(name: &str, says: &str, bytes: impl Into<Vec<u8>>) -> Seed {
    Seed { name: name.to_owned(), says: says.to_owned(), bytes: bytes.into() }
}

/// The seeds of a target.
pub(crate) fn of(target: &str) -> Vec<Seed> {
    match target {
        "gguf" => gguf::seeds(),
        "safetensors" => safetensors::seeds(),
        "config" => config::seeds(),
        "tokenizer_gguf" => tokenizer_gguf::seeds(),
        "tokenizer_directory" => tokenizer_directory::seeds(),
        "chat_template" => chat_template::seeds(),
        other => panic!("no seeds for {other}"),
    }
}

/// A GGUF file of these pairs, some of which may be replaced by `changes` or, where a change is `None`, left out.
fn with_changes(pairs: &[(&str, Value)], changes: &[(&str, Option<Value>)]) -> Builder {
    let change = |key: &str| changes.iter().find(|(changed, _)| *changed == key);
    let mut builder = Builder::new(3);
    for (key, value) in pairs {
        match change(key) {
            None => builder = builder.pair(key, value),
            Some((_, Some(value))) => builder = builder.pair(key, value),
            Some((_, None)) => {}
        }
    }
    for (key, value) in changes.iter().filter(|(key, _)| pairs.iter().all(|(known, _)| known != key)) {
        builder = builder.pair(key, value.as_ref().expect("a value for a new key"));
    }
    builder
}
