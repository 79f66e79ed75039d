//! Tokenizers written as GGUF metadata and read back.
#![allow(clippy::unwrap_used)] // tests

mod common;

use common::{Builder, id, tokens};
use nanovllm_gguf::{Array, Metadata, Value};
use nanovllm_tokenizer::{ChatOptions, Error, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

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
    for (key, value) in tokenizer.to_gguf(rows)?.pairs {
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

/// The tokenizer of a directory: the tokenizer.json of `Builder` with changes, and files beside it.
fn from_directory(change: impl FnOnce(&mut Json), files: &[(&str, Json)]) -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    let text = Builder::new("qwen2").tokenizer().unwrap().to_json().unwrap();
    let mut json: Json = serde_json::from_str(&text).unwrap();
    change(&mut json);
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content.to_string()).unwrap();
    }
    Tokenizer::from_dir(dir.path()).unwrap()
}

/// What is written, and what our own reader makes of it.
fn there_and_back(before: &Tokenizer) -> (Vec<String>, Tokenizer) {
    let written = before.to_gguf(tokens().len()).unwrap();
    (written.lost, Tokenizer::from_gguf(&exported(before, tokens().len()).unwrap()).unwrap())
}

#[test]
fn every_end_of_a_generation_is_kept() {
    let ends: Vec<u32> = ["<|im_end|>", "<|eot|>", "</think>", "<|bos|>", "hello"].map(id).into();
    let role = json!({"eos_token": "<|im_end|>"});
    let before = from_directory(
        |_| (),
        &[("tokenizer_config.json", role), ("generation_config.json", json!({"eos_token_id": ends.clone()}))],
    );
    assert_eq!(before.eos_token_ids(), ends);
    let (lost, after) = there_and_back(&before);
    assert_eq!(after.eos_token_ids(), ends);
    assert_eq!(lost, [""; 0]);
    let metadata = exported(&before, tokens().len()).unwrap();
    // llama.cpp reads the first three.
    let read = ["eos", "eot", "eom"].map(|name| metadata.u64(&format!("tokenizer.ggml.{name}_token_id")).unwrap());
    assert_eq!(read.map(|id| id as u32), ends[..3]);
}

#[test]
fn added_tokens_are_matched_as_before() {
    let flags = ["lstrip", "rstrip", "single_word", "normalized"];
    let before = from_directory(
        |json| {
            for (i, token) in json["added_tokens"].as_array_mut().unwrap().iter_mut().enumerate() {
                for (j, flag) in flags.iter().enumerate() {
                    token[flag] = json!((i + 1) >> j & 1 == 1);
                }
            }
        },
        &[],
    );
    let (lost, after) = there_and_back(&before);
    assert_eq!(lost, [""; 0]);
    let added = |t: &Tokenizer| serde_json::from_str::<Json>(&t.to_json().unwrap()).unwrap()["added_tokens"].clone();
    assert_eq!(added(&before), added(&after));
    let text = "hello  <|im_start|>  hello<|im_end|> <think> a<think>a </think> e\u{301}";
    assert_eq!(before.encode(text, false).unwrap(), after.encode(text, false).unwrap());
    let plain = Builder::new("qwen2").tokenizer().unwrap();
    assert_ne!(before.encode(text, false).unwrap(), plain.encode(text, false).unwrap());
}

#[test]
fn every_role_and_template_is_kept() {
    let roles = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
    let mut config = json!({"chat_template": [
        {"name": "default", "template": "{{ pad_token }}{{ cls_token }}"},
        {"name": "tool_use", "template": "{{ sep_token }}{{ mask_token }}"},
    ]});
    for (role, token) in roles.iter().zip(tokens().iter().rev()) {
        config[role] = json!(token);
    }
    let before = from_directory(|_| (), &[("tokenizer_config.json", config)]);
    let (lost, after) = there_and_back(&before);
    // GGUF has one type for added tokens, so tokens of the vocabulary that have a role become special ones there too.
    assert_eq!(lost, [""; 0]);
    for name in [None, Some("tool_use")] {
        let options = ChatOptions { template: name.map(str::to_owned), ..ChatOptions::default() };
        let render = |t: &Tokenizer| t.apply_chat_template(&json!([]), &options).unwrap();
        assert_eq!(render(&before), render(&after));
        assert!(!render(&after).is_empty());
    }
}

#[test]
fn what_gguf_cannot_hold_is_named() {
    let n = tokens().len();
    let decoders = json!({"type": "Sequence", "decoders": [
        {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        {"type": "Replace", "pattern": {"String": "'"}, "content": "?"},
    ]});
    let around = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|eot|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|eot|>": {"id": "<|eot|>", "ids": [id("<|eot|>")], "tokens": ["<|eot|>"]}},
    });
    let before = from_directory(
        |json| {
            json["decoder"] = decoders;
            json["post_processor"] = around;
        },
        &[
            ("tokenizer_config.json", json!({"pad_token": "<|none|>", "bos_token": "<|bos|>"})),
            ("generation_config.json", json!({"eos_token_id": [3, n]})),
        ],
    );
    let lost = before.to_gguf(n).unwrap().lost.join("; ");
    for part in ["pad_token \"<|none|>\"", &format!("id {n},"), "put around a text", "decoded"] {
        assert!(lost.contains(part), "{lost}");
    }
}

#[test]
fn a_list_of_ids_outside_the_vocabulary_is_refused() {
    for key in ["tokenizer.ggml.eos_token_ids", "nanovllm.tokenizer.lstrip_token_ids"] {
        for id in [-1, tokens().len() as i32] {
            let list = Value::Array(Array::I32(vec![0, id]));
            let error = Builder::new("smollm").with(key, list).tokenizer().unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(&id.to_string()), "{error}");
        }
    }
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
