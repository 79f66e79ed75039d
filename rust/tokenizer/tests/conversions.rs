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
use serde_json::{Value as Json, json};

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

/// The metadata that our own export makes of a tokenizer, which nothing may be lost in.
fn exported(original: &Tokenizer, rows: usize) -> Metadata {
    let exported = original.to_gguf(rows).unwrap();
    assert_eq!(exported.lost, Vec::<String>::new());
    let mut metadata = Metadata::default();
    for (key, value) in exported.pairs {
        metadata.insert(key, value).unwrap();
    }
    metadata
}

fn json(name: &str) -> Json {
    serde_json::from_str(&std::fs::read_to_string(directory(name).join("tokenizer.json")).unwrap()).unwrap()
}

/// As many rows as a tokenizer.json has ids, and some more.
fn rows(json: &Json) -> usize {
    json["model"]["vocab"].as_object().unwrap().len() + json["added_tokens"].as_array().unwrap().len()
}

/// The tokenizer of `name` with another tokenizer.json.
fn with_json(name: &str, json: &Json) -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    let config = std::fs::read_to_string(directory(name).join("tokenizer_config.json")).unwrap();
    let mut config: Json = serde_json::from_str(&config).unwrap();
    // The tokens that tokenizer.json adds are enough.
    config.as_object_mut().unwrap().remove("added_tokens_decoder");
    config.as_object_mut().unwrap().remove("extra_special_tokens");
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    Tokenizer::from_dir(dir.path()).unwrap()
}

/// The original against what llama.cpp's converter and our own export make of it.
fn agrees(name: &str) {
    let (original, converted) = both(name);
    agree(&original, converted);
    let metadata = exported(&original, rows(&json(name)));
    let model = match name {
        "llama" | "gemma3" => "llama",
        "gemma4" => "gemma4",
        _ => "gpt2",
    };
    assert_eq!(metadata.str("tokenizer.ggml.model").unwrap(), model);
    agree(&original, Tokenizer::from_gguf(&metadata).unwrap());
}

/// As transformers 5 writes it, where a space is put before the first stretch alone, or only where there is none.
#[test]
fn a_metaspace_is_kept() {
    for scheme in ["first", "always"] {
        let mut json = json("llama");
        json["normalizer"] = Json::Null;
        json["pre_tokenizer"] =
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
        let original = with_json("llama", &json);
        let metadata = exported(&original, rows(&json));
        assert_eq!(metadata.str("tokenizer.ggml.model").unwrap(), "llama");
        agree(&original, Tokenizer::from_gguf(&metadata).unwrap());
    }
}

/// Without a token before its texts, a vocabulary that lists its merges is of another kind.
#[test]
fn listed_merges_without_a_beginning() {
    let mut json = json("gemma4");
    json["post_processor"] = Json::Null;
    let original = with_json("gemma4", &json);
    let metadata = exported(&original, rows(&json));
    assert_eq!(metadata.str("tokenizer.ggml.pre").unwrap(), "sarvam-moe");
    agree(&original, Tokenizer::from_gguf(&metadata).unwrap());
}

/// Runs of white space have one score in Gemma's models, so that their merges are mixed with each other.
#[test]
fn tokens_of_one_score_and_tokens_without_one() {
    let tokens = ["<unk>", "<s>", "</s>", "\n", "▁", "a", "b", "▁▁", "\n\n", "▁▁▁", "\n\n\n", "ab", "a:b", "x"];
    let vocab: serde_json::Map<String, Json> =
        tokens.iter().zip(0..).map(|(t, id)| ((*t).to_owned(), id.into())).collect();
    let mut json = json("gemma3");
    json["model"]["vocab"] = vocab.into();
    json["model"]["merges"] =
        json!([["▁▁", "▁"], ["\n\n", "\n"], ["▁", "▁▁"], ["\n", "\n\n"], ["▁", "▁"], ["\n", "\n"], ["a", "b"]]);
    let added = |id: usize| {
        json!({"id": id, "content": tokens[id], "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": id < 3})
    };
    // The last is added, and could be made of tokens, but has no merge.
    json["model"]["vocab"]["a:"] = json!(14);
    json["added_tokens"] = json!([added(0), added(1), added(2), added(12)]);
    json["post_processor"] = Json::Null;
    let original = with_json("gemma3", &json);
    let metadata = exported(&original, 15);
    assert_eq!(metadata.str("tokenizer.ggml.model").unwrap(), "llama");
    let rebuilt = Tokenizer::from_gguf(&metadata).unwrap();
    for text in ["a   b", "    ", "\n\n\n\n ", "aba:bx", "ab    \n\n\n"] {
        assert_eq!(rebuilt.encode(text, false).unwrap(), original.encode(text, false).unwrap(), "{text:?}");
    }
    // Merges that make not every token out of every pair do not follow from scores.
    json["model"]["merges"] = json!([["a", "b"], ["▁", "▁"]]);
    let metadata = exported(&with_json("gemma3", &json), 15);
    assert_eq!(metadata.str("tokenizer.ggml.pre").unwrap(), "sarvam-moe");
}

#[test]
fn what_has_no_row_or_no_form_is_named() {
    let original = both("gemma3").0;
    let rows = json("gemma3")["model"]["vocab"].as_object().unwrap().len();
    let mut with_more = json("gemma3");
    let image = json!({"id": rows, "content": "<image>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true});
    with_more["added_tokens"].as_array_mut().unwrap().push(image);
    let exported = with_json("gemma3", &with_more).to_gguf(rows).unwrap();
    assert_eq!(exported.lost, ["how the added token \"<image>\" is matched"]);
    assert_eq!(exported.pairs, original.to_gguf(rows).unwrap().pairs);
    let refused = |change: &dyn Fn(&mut Json)| {
        let mut json = json("llama");
        change(&mut json);
        with_json("llama", &json).to_gguf(600).unwrap_err().to_string()
    };
    let whole = refused(&|json| json["model"]["ignore_merges"] = true.into());
    assert!(whole.contains("words that are tokens whole"), "{whole}");
    let listed = refused(&|json| drop(json["model"]["merges"].as_array_mut().unwrap().remove(7)));
    assert!(listed.contains("no scores make its merges"), "{listed}");
    let lower = refused(&|json| json["normalizer"] = json!({"type": "Lowercase"}));
    assert!(lower.contains("normaliser"), "{lower}");
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
