//! A small byte-level vocabulary, as GGUF metadata.
#![allow(dead_code, clippy::unwrap_used)] // every test binary uses its own part

use nanovllm_gguf::{Array, Metadata, Value};

/// Merge rules in order of rank, in the byte alphabet.
pub(crate) const MERGES: &[&str] = &[
    "h e",
    "l l",
    "he ll",
    "hell o",
    "Ġ w",
    "o r",
    "Ġw or",
    "l d",
    "Ġwor ld",
    "a b",
    "b a",
    "ab a",
    "a a",
    "aa aa",
    "Ġ Ġ",
    "ĠĠ ĠĠ",
    "Ċ Ċ",
    "1 2",
    "12 3",
    "Ã ©",
    "Ġ a",
    "' s",
    "i s",
];

/// Control tokens, then user-defined ones, at the end of the vocabulary.
pub(crate) const CONTROL: &[&str] = &["<|bos|>", "<|im_start|>", "<|im_end|>", "<|eot|>"];
pub(crate) const USER_DEFINED: &[&str] = &["<think>", "</think>"];

/// The character that stands for each byte, counted out as GPT-2 does.
pub(crate) fn alphabet() -> Vec<char> {
    let mut next = 0x100;
    (0..=255u8)
        .map(|b| {
            if matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) {
                char::from(b)
            } else {
                next += 1;
                char::from_u32(next - 1).unwrap()
            }
        })
        .collect()
}

/// Bytes, merged tokens, control tokens, user-defined tokens, in this order.
pub(crate) fn tokens() -> Vec<String> {
    let bytes = alphabet().into_iter().map(String::from);
    let merged = MERGES.iter().map(|rule| rule.replace(' ', ""));
    let added = CONTROL.iter().chain(USER_DEFINED).map(|token| (*token).to_owned());
    bytes.chain(merged).chain(added).collect()
}

pub(crate) fn id(token: &str) -> u32 {
    tokens().iter().position(|known| known == token).unwrap() as u32
}

/// Metadata entries that tests change before building.
pub(crate) struct Builder(Vec<(String, Value)>);

impl Builder {
    pub(crate) fn new(pre: &str) -> Self {
        let tokens = tokens();
        let ordinary = tokens.len() - CONTROL.len() - USER_DEFINED.len();
        let types = [vec![1; ordinary], vec![3; CONTROL.len()], vec![4; USER_DEFINED.len()]].concat();
        Self(Vec::new())
            .with("tokenizer.ggml.model", Value::String("gpt2".into()))
            .with("tokenizer.ggml.pre", Value::String(pre.into()))
            .with("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)))
            .with("tokenizer.ggml.token_type", Value::Array(Array::I32(types)))
            .with("tokenizer.ggml.merges", strings(MERGES))
            .with("tokenizer.ggml.bos_token_id", Value::U32(id("<|bos|>")))
            .with("tokenizer.ggml.eos_token_id", Value::U32(id("<|im_end|>")))
            .with("tokenizer.ggml.add_bos_token", Value::Bool(false))
    }

    /// Sets or replaces a key.
    pub(crate) fn with(mut self, key: &str, value: Value) -> Self {
        self.0.retain(|(known, _)| known != key);
        self.0.push((key.to_owned(), value));
        self
    }

    pub(crate) fn without(mut self, key: &str) -> Self {
        self.0.retain(|(known, _)| known != key);
        self
    }

    pub(crate) fn metadata(self) -> Metadata {
        let mut metadata = Metadata::default();
        for (key, value) in self.0 {
            metadata.insert(key, value).unwrap();
        }
        metadata
    }

    pub(crate) fn tokenizer(self) -> Result<nanovllm_tokenizer::Tokenizer, nanovllm_tokenizer::Error> {
        nanovllm_tokenizer::Tokenizer::from_gguf(&self.metadata())
    }
}

pub(crate) fn strings(items: &[&str]) -> Value {
    Value::Array(Array::String(items.iter().map(|item| (*item).to_owned()).collect()))
}
