//! Tokenizer files of Hugging Face directories.

use serde_json::{Value, json};

use super::{Seed, seed};

/// A byte-level BPE tokenizer of a few tokens.
fn byte_level() -> Value {
    json!({
        "version": "1.0",
        "added_tokens": [{"id": 5, "content": "<|im_start|>", "special": true, "single_word": false,
                          "lstrip": false, "rstrip": false, "normalized": false}],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": r"\p{N}{1,3}| ?\p{L}+|\s+(?!\S)"},
             "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        ]},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [5], "tokens": ["<|im_start|>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3, "Ġab": 4}, "merges": [["a", "b"], ["Ġ", "ab"]]},
    })
}

/// A BPE tokenizer in SentencePiece's manner, with bytes for what it lacks.
fn byte_fallback() -> Value {
    json!({
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "byte_fallback": true, "fuse_unk": true, "unk_token": "<unk>",
                  "vocab": {"<unk>": 0, "<0x21>": 1, "▁": 2, "a": 3, "▁a": 4}, "merges": ["▁ a"]},
    })
}

/// A unigram tokenizer.
fn unigram() -> Value {
    json!({
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true},
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true},
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false,
                  "vocab": [["<unk>", 0.0], ["▁", -1.0], ["a", -2.0], ["▁ab", -1.5]]},
    })
}

/// The files one after the other, as the target cuts them.
fn files(parts: &[&Value]) -> Vec<u8> {
    parts.iter().map(ToString::to_string).collect::<Vec<_>>().join("\0").into_bytes()
}

pub(super) fn seeds() -> Vec<Seed> {
    let with_config = |config: Value| files(&[&byte_level(), &config]);
    let with_model = |config: Value| files(&[&byte_level(), &json!({}), &config]);
    let declared = |id: &str| json!({"added_tokens_decoder": {id: {"content": "<a>", "special": true}}});
    vec![
        seed("ok-byte_level", "", files(&[&byte_level()])),
        seed("ok-byte_fallback", "", files(&[&byte_fallback()])),
        seed("ok-unigram", "", files(&[&unigram()])),
        seed("ok-roles", "", with_config(json!({"eos_token": {"content": "ab"}, "pad_token": "b", "bos_token": null}))),
        seed("ok-added", "", with_config(declared("6"))),
        seed(
            "ok-flags",
            "",
            with_config(json!({"tokenizer_class": "LlamaTokenizer", "add_bos_token": true, "bos_token": "a"})),
        ),
        seed("ok-several_ends", "", with_model(json!({"eos_token_id": [5, 3]}))),
        seed("Json-nothing", "tokenizer.json", Vec::new()),
        seed("Json-control_character", "tokenizer.json", "{\"decoder\": \"\u{1}\"}"),
        seed("TokenizerJson-decoder_number", "tokenizer.json", {
            let mut contradiction = byte_level();
            contradiction["decoder"] = json!(5);
            files(&[&contradiction])
        }),
        seed("TokenizerJson-an_array", "tokenizer.json", files(&[&json!([])])),
        seed("TokenizerJson-no_model", "tokenizer.json", files(&[&json!({"model": {"type": "Magic"}})])),
        seed("Json-config_cut", "tokenizer_config.json", [files(&[&byte_level()]), b"\0{".to_vec()].concat()),
        seed("Config-added_key", "token ids as keys", with_config(declared("six"))),
        seed("Config-added_no_content", "with its content", with_config(json!({"added_tokens_decoder": {"6": {}}}))),
        seed("Config-template_number", "chat_template", with_config(json!({"chat_template": 1}))),
        seed("Config-end_text", "eos_token_id", with_model(json!({"eos_token_id": "5"}))),
        seed("AddedTokenId-elsewhere", "9", with_config(declared("9"))),
        seed(
            "MissingSpecialToken-begin",
            "bos_token",
            with_config(json!({"tokenizer_class": "LlamaTokenizer", "add_bos_token": true})),
        ),
    ]
}
