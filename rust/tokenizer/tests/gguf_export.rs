//! Tokenizers written as GGUF metadata and read back.
#![allow(clippy::unwrap_used)] // tests

mod common;

use common::{Builder, tokens};
use nanovllm_gguf::{Array, Metadata, Value};
use nanovllm_tokenizer::{Error, Tokenizer};
use proptest::prelude::*;

/// Each with its own cut; `stablelm2` and `qwen2` differ in the normaliser alone.
const NAMES: [&str; 12] = [
    "gpt-2",
    "smollm",
    "default",
    "llama-bpe",
    "dbrx",
    "qwen2",
    "stablelm2",
    "qwen35",
    "tekken",
    "gpt-4o",
    "deepseek-coder",
    "deepseek-v3",
];

fn exported(tokenizer: &Tokenizer, rows: usize) -> Result<Metadata, Error> {
    let mut metadata = Metadata::default();
    for (key, value) in tokenizer.to_gguf(rows)? {
        metadata.insert(key, value).unwrap();
    }
    Ok(metadata)
}

#[test]
fn every_cut_keeps_its_name() {
    for name in NAMES {
        let tokenizer = Builder::new(name).tokenizer().unwrap();
        assert_eq!(exported(&tokenizer, tokens().len()).unwrap().str("tokenizer.ggml.pre").unwrap(), name);
    }
}

#[test]
fn roles_flags_and_template_are_written() {
    let template = Value::String("{{ messages }}".into());
    let builder = Builder::new("smollm").with("tokenizer.chat_template", template);
    let before = builder.with("tokenizer.ggml.add_bos_token", Value::Bool(true)).tokenizer().unwrap();
    let metadata = exported(&before, tokens().len()).unwrap();
    let after = Tokenizer::from_gguf(&metadata).unwrap();
    assert_eq!(after.bos_token_id(), before.bos_token_id());
    assert_eq!(after.eos_token_ids(), before.eos_token_ids());
    assert_eq!(after.chat_template(), before.chat_template());
    assert!(metadata.bool("tokenizer.ggml.add_bos_token").unwrap());
    assert!(!metadata.bool("tokenizer.ggml.add_eos_token").unwrap());
}

#[test]
fn rows_without_a_token_are_unused() {
    let tokenizer = Builder::new("smollm").tokenizer().unwrap();
    let n = tokens().len();
    let metadata = exported(&tokenizer, n + 3).unwrap();
    assert_eq!(metadata.strings("tokenizer.ggml.tokens").unwrap()[n + 2], format!("[PAD{}]", n + 2));
    assert_eq!(metadata.i32s("tokenizer.ggml.token_type").unwrap()[n..], [5, 5, 5]);
    assert_eq!(metadata.get("tokenizer.ggml.merges"), Builder::new("smollm").metadata().get("tokenizer.ggml.merges"));
    let few = exported(&tokenizer, n - 1).unwrap_err();
    assert!(few.to_string().contains("has no row"), "{few}");
}

#[test]
fn the_vocabulary_is_unchanged() {
    let tokenizer = Builder::new("gpt-2").tokenizer().unwrap();
    let metadata = exported(&tokenizer, tokens().len()).unwrap();
    assert_eq!(metadata.get("tokenizer.ggml.tokens"), Some(&Value::Array(Array::String(tokens()))));
    let types = Builder::new("gpt-2").metadata();
    assert_eq!(metadata.get("tokenizer.ggml.token_type"), types.get("tokenizer.ggml.token_type"));
}

proptest! {
    #[test]
    fn texts_encode_alike(text in r"(hello| world|aba|é|<\|im_end\|>|<think>|'s| a|12345|\n|\PC){0,12}") {
        let before = Builder::new("smollm").tokenizer().unwrap();
        let after = Tokenizer::from_gguf(&exported(&before, tokens().len()).unwrap()).unwrap();
        for special in [false, true] {
            prop_assert_eq!(before.encode(&text, special).unwrap(), after.encode(&text, special).unwrap());
        }
    }
}
