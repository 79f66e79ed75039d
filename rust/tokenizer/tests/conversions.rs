//! The tokenizer rebuilt from a GGUF vocabulary is the `tokenizer.json` that it was made from, by llama.cpp's converter or
//! by our own export.
//!
//! A small tokenizer of each kind, from `tests/golden/make_gguf_tokenizers.py`.
#![allow(clippy::unwrap_used)] // tests

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nanovllm_gguf::{GgufFile, Metadata};
use nanovllm_tokenizer::{Detokenizer, Tokenizer};
use proptest::prelude::*;

/// What texts are made of, besides any characters: words of many scripts, code, numbers, white space, and the text of
/// special tokens.
const PIECES: &[&str] = &[
    "the",
    " the",
    " and",
    "I'm",
    "don't",
    " we'LL",
    "'s",
    "'S",
    "fooBar",
    "HTTPServer",
    "naïve",
    "e\u{301}",
    "ǅ",
    "ß", //
    "Привет",
    " мир",
    "Ωμέγα",
    "שלום",
    "مرحبا",
    "हिन्दी",
    "ภาษาไทย",
    "日本語",
    "テキスト",
    "漢字",
    "我想",
    "한국어",
    "𠀀", //
    "1",
    "12",
    "345",
    "1234567",
    "1,234.5",
    "２",
    "½",
    "Ⅷ",
    " ",
    "  ",
    "   ",
    "    ",
    "        ",
    "\n",
    "\n\n",
    "\n\n\n", //
    "\r\n",
    "\t",
    "\u{a0}",
    "\u{3000}",
    "\0",
    ".",
    "...",
    "!",
    "!!",
    ",",
    "-",
    "->",
    "_",
    "(",
    ");",
    "{}",
    "[0]",
    "=",
    "!=", //
    "/",
    "//",
    "\\",
    "\"",
    "`",
    "#",
    "<",
    "|>",
    "~",
    "$",
    "^",
    "…",
    "“",
    "。",
    "🚀",
    "😀",
    "👩‍👩‍👧",
    "🇫🇷",
    "\u{200d}",
    "\u{fffd}", //
    "<unk>",
    "<s>",
    "</s>",
    "<bos>",
    "<eos>",
    "<turn|>",
    "<|turn>",
    "<end_of_turn>",
    "<table>",
    "<|im_start|>",
    "<|im_end|>", //
    "<|eot_id|>",
    "<|begin_of_text|>",
    "[INST]",
    "<tool_call>",
    "<think>",
    "<|return|>",
    "<｜User｜>",
    "▁",
    "Ġ",
    "<0x41>",
];

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => prop::sample::select(PIECES).prop_map(str::to_owned),
        1 => "\\PC{1,3}",
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/gguf_tokenizers").join(name)
}

/// The tokenizers of the directory and of the GGUF file.
fn both(name: &str) -> (Tokenizer, Tokenizer) {
    let directory = directory(name);
    let file = GgufFile::open(&directory.join("vocab.gguf")).unwrap();
    (Tokenizer::from_dir(&directory).unwrap(), Tokenizer::from_gguf(file.metadata()).unwrap())
}

/// Compares both on drawn texts.
fn agree(original: &Tokenizer, rebuilt: Tokenizer) {
    let rebuilt = Arc::new(rebuilt);
    let mut config = ProptestConfig::with_cases(3000);
    config.failure_persistence = None;
    proptest!(config, |(text in text())| {
        let ids = original.encode(&text, true).unwrap();
        prop_assert_eq!(rebuilt.encode(&text, true).unwrap(), ids.clone(), "{:?}", text);
        for skip in [false, true] {
            let whole = original.decode(&ids, skip).unwrap();
            prop_assert_eq!(rebuilt.decode(&ids, skip).unwrap(), whole.clone(), "{:?}", text);
            let mut stream = Detokenizer::new(Arc::clone(&rebuilt), skip);
            let pieces: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
            prop_assert_eq!(pieces + &stream.finish(), whole, "{:?}", text);
        }
    });
}

/// The original against what llama.cpp's converter and our own export make of it.
fn agrees(name: &str) {
    let (original, converted) = both(name);
    agree(&original, converted);
    let ordinary = std::fs::read_to_string(directory(name).join("tokenizer.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&ordinary).unwrap();
    let rows = json["model"]["vocab"].as_object().unwrap().len() + json["added_tokens"].as_array().unwrap().len();
    let exported = original.to_gguf(rows).unwrap();
    assert_eq!(exported.lost, Vec::<String>::new());
    let mut metadata = Metadata::default();
    for (key, value) in exported.pairs {
        metadata.insert(key, value).unwrap();
    }
    let model = match name {
        "llama" | "gemma3" => "llama",
        "gemma4" => "gemma4",
        _ => "gpt2",
    };
    assert_eq!(metadata.str("tokenizer.ggml.model").unwrap(), model);
    agree(&original, Tokenizer::from_gguf(&metadata).unwrap());
}

macro_rules! kinds {
    ($($test:ident: $name:literal,)*) => {
        $(#[test] fn $test() { agrees($name); })*

        #[test]
        fn every_directory_is_compared() {
            let mut found: Vec<_> = std::fs::read_dir(directory("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            found.sort();
            let mut named = [$($name),*];
            named.sort_unstable();
            assert_eq!(found, named);
        }
    };
}

kinds! {
    smollm: "smollm",
    llama_bpe: "llama-bpe",
    qwen2: "qwen2",
    tekken: "tekken",
    gpt_4o: "gpt-4o",
    deepseek_v3: "deepseek-v3",
    llama: "llama",
    gemma3: "gemma3",
    gemma4: "gemma4",
}

#[test]
fn roles_and_ends_agree() {
    let text = |tokenizer: &Tokenizer, ids: &[u32]| -> Vec<String> {
        ids.iter().map(|&id| tokenizer.decode(&[id], false).unwrap()).collect()
    };
    // A GGUF vocabulary knows further ends by their text.
    for (name, ends) in [
        ("smollm", &["<|im_end|>"][..]),
        ("llama-bpe", &["<|eot_id|>"]),
        ("qwen2", &["<|im_end|>", "<|endoftext|>"]),
        ("gpt-4o", &["<|return|>", "<|call|>"]),
        ("deepseek-v3", &["<｜end▁of▁sentence｜>"]),
        ("gemma3", &["</s>", "<end_of_turn>"]),
        ("gemma4", &["<eos>", "<turn|>"]),
    ] {
        let (original, rebuilt) = both(name);
        assert_eq!(rebuilt.bos_token_id(), original.bos_token_id(), "{name}");
        assert_eq!(text(&rebuilt, rebuilt.eos_token_ids()), ends, "{name}");
        assert_eq!(original.eos_token_ids(), &rebuilt.eos_token_ids()[..1], "{name}");
    }
}
