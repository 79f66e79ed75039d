//! Tokenizers rebuilt from GGUF vocabularies, against a naive byte-pair encoder.
#![allow(clippy::unwrap_used)] // tests

mod common;

use common::{Builder, CONTROL, MERGES, USER_DEFINED, alphabet, id, strings, tokens};
use nanovllm_gguf::{Array, Value};
use nanovllm_tokenizer::{Error, Tokenizer};
use proptest::prelude::*;

/// Byte-pair encoding by its definition: merge the leftmost pair of the lowest rank until there is none.
fn merge(word: &str) -> Vec<u32> {
    let alphabet = alphabet();
    let mut parts: Vec<String> = word.bytes().map(|b| alphabet[usize::from(b)].to_string()).collect();
    loop {
        let rank = |i: usize| MERGES.iter().position(|rule| **rule == format!("{} {}", parts[i], parts[i + 1]));
        let Some((_, i)) = (0..parts.len().saturating_sub(1)).filter_map(|i| Some((rank(i)?, i))).min() else {
            let tokens = tokens();
            return parts.iter().map(|part| tokens.iter().position(|t| t == part).unwrap() as u32).collect();
        };
        let right = parts.remove(i + 1);
        parts[i].push_str(&right);
    }
}

/// GPT-2's words after single digits, written as a scanner: a contraction; or an optional space and a run of letters, of
/// digits or of other characters; or white space, which leaves its last character to the word that follows.
fn smollm_words(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = vec![String::new()];
    for c in text.chars() {
        if c.is_numeric() {
            pieces.extend([c.to_string(), String::new()]);
        } else {
            pieces.last_mut().unwrap().push(c);
        }
    }
    pieces.iter().flat_map(|piece| gpt2_words(piece)).collect()
}

fn gpt2_words(text: &str) -> Vec<String> {
    let class = |c: char| match c {
        c if c.is_whitespace() => 0,
        c if is_letter(c) => 1,
        c if c.is_numeric() => 2,
        _ => 3,
    };
    let chars: Vec<char> = text.chars().collect();
    let (mut words, mut i) = (Vec::new(), 0);
    while i < chars.len() {
        let rest: String = chars[i..].iter().take(3).collect();
        let start = i;
        if let Some(suffix) = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].iter().find(|s| rest.starts_with(**s)) {
            i += suffix.len();
        } else {
            let spaces = chars[i..].iter().take_while(|c| class(**c) == 0).count();
            let followed = i + spaces < chars.len();
            if spaces == 0 || (spaces == 1 && chars[i] == ' ' && followed) {
                i += spaces;
                let kind = class(chars[i]);
                i += chars[i..].iter().take_while(|c| class(**c) == kind).count();
            } else {
                i += if followed { (spaces - 1).max(1) } else { spaces };
            }
        }
        words.push(chars[start..i].iter().collect());
    }
    words
}

/// `\p{L}`; the standard library's alphabetic property also holds marks and letter numbers, which the texts drawn here
/// leave out.
fn is_letter(c: char) -> bool {
    c.is_alphabetic()
}

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "hello", " world", "abaaba", "aaaaa", "    ", "\n\n", "123", "é", " a", "is", "'s", "'ll", "'", "\t", "\u{a0}",
            "日本", "🦀", "!", " ?", "½",
        ]).prop_map(str::to_owned),
        1 => "[ a-zA-Z0-9'\\n.,é日🦀]{0,8}",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn smollm() -> Tokenizer {
    Builder::new("smollm").tokenizer().unwrap()
}

proptest! {
    #[test]
    fn encoding_is_byte_pair_encoding_of_the_words(text in text()) {
        let expected: Vec<u32> = smollm_words(&text).iter().flat_map(|word| merge(word)).collect();
        prop_assert_eq!(smollm().encode(&text, false).unwrap(), expected);
    }

    #[test]
    fn decoding_undoes_encoding(text in any::<String>(), pre in prop::sample::select(vec![
        "gpt-2", "smollm", "default", "llama-bpe", "tekken", "gpt-4o", "deepseek-coder", "deepseek-v3", "stablelm2",
    ])) {
        let tokenizer = Builder::new(pre).tokenizer().unwrap();
        let ids = tokenizer.encode(&text, true).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
    }

    #[test]
    fn the_json_form_is_the_same_tokenizer(text in text()) {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = Builder::new("llama-bpe").with("tokenizer.ggml.add_bos_token", Value::Bool(true)).tokenizer().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_json().unwrap()).unwrap();
        let again = Tokenizer::from_dir(dir.path()).unwrap();
        prop_assert_eq!(again.encode(&text, true).unwrap(), tokenizer.encode(&text, true).unwrap());
    }
}

#[test]
fn special_tokens_are_matched_in_the_text_and_skipped_on_demand() {
    let tokenizer = smollm();
    let text = "<|im_start|>hello<think> world</think><|im_end|>";
    let ids = tokenizer.encode(text, false).unwrap();
    let expected = ["<|im_start|>", "hello", "<think>", "Ġworld", "</think>", "<|im_end|>"].map(id);
    assert_eq!(ids, expected);
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "hello<think> world</think>");
    assert_eq!(tokenizer.vocab_size(), 256 + MERGES.len() + CONTROL.len() + USER_DEFINED.len());
}

#[test]
fn a_tokenizer_can_be_shared_between_threads() {
    fn shareable<T: Send + Sync + 'static>(_: T) {}
    shareable(smollm());
}

#[test]
fn qwen2_normalises_and_llama_does_not() {
    let decomposed = "e\u{301}";
    let encode = |pre| Builder::new(pre).tokenizer().unwrap().encode(decomposed, false).unwrap();
    assert_eq!(encode("qwen2"), [id("Ã©")]);
    assert_eq!(encode("smollm").len(), 3);
}

#[test]
fn ignore_merges_takes_a_word_that_is_a_token_whole() {
    // "is" is the last rule, so "his" needs "h" + "is"; a word "aaaa" is a token either way.
    let mut tokens = tokens();
    tokens.push("his".into());
    let build = |pre| {
        let types = Value::Array(Array::I32(vec![1; tokens.len()]));
        let builder = Builder::new(pre).with("tokenizer.ggml.tokens", Value::Array(Array::String(tokens.clone())));
        builder.with("tokenizer.ggml.token_type", types).tokenizer().unwrap()
    };
    let whole = (tokens.len() - 1) as u32;
    assert_eq!(build("llama-bpe").encode("his", false).unwrap(), [whole]);
    assert_eq!(build("smollm").encode("his", false).unwrap(), [id("h"), id("is")]);
}

#[test]
fn flags_put_tokens_around_the_text() {
    let encode = |builder: Builder| builder.tokenizer().unwrap().encode("hello", true).unwrap();
    let (bos, hello, eos) = (id("<|bos|>"), id("hello"), id("<|im_end|>"));
    let flag = Value::Bool(true);
    assert_eq!(encode(Builder::new("smollm")), [hello]);
    assert_eq!(encode(Builder::new("smollm").with("tokenizer.ggml.add_bos_token", flag.clone())), [bos, hello]);
    assert_eq!(encode(Builder::new("llama-bpe").without("tokenizer.ggml.add_bos_token")), [bos, hello]);
    assert_eq!(encode(Builder::new("smollm").with("tokenizer.ggml.add_eos_token", flag)), [hello, eos]);
}

#[test]
fn roles_come_from_the_keys() {
    let tokenizer = Builder::new("smollm")
        .with("tokenizer.ggml.eot_token_id", Value::U32(id("<|eot|>")))
        .with("tokenizer.ggml.eom_token_id", Value::U32(id("<|im_end|>")))
        .with("tokenizer.chat_template", Value::String("{{ eos_token }}".into()))
        .tokenizer()
        .unwrap();
    assert_eq!(tokenizer.eos_token_ids(), [id("<|im_end|>"), id("<|eot|>")]);
    assert_eq!(tokenizer.eos_token_id(), Some(id("<|im_end|>")));
    assert_eq!((tokenizer.bos_token(), tokenizer.bos_token_id()), (Some("<|bos|>"), Some(id("<|bos|>"))));
    assert_eq!((tokenizer.pad_token(), tokenizer.pad_token_id()), (None, None));
    assert_eq!(tokenizer.chat_template(), Some("{{ eos_token }}"));
}

#[test]
fn ids_without_a_token_are_named() {
    let tokenizer = smollm();
    let error = tokenizer.decode(&[0, 100_000], false).unwrap_err();
    assert!(matches!(error, Error::TokenId { id: 100_000, .. }), "{error}");
    assert!(error.to_string().contains(&tokenizer.vocab_size().to_string()), "{error}");
}

/// What must be refused, and a part of the message.
#[test]
fn a_vocabulary_that_makes_no_sense_is_refused() {
    let string = |text: &str| Value::String(text.into());
    let base = || Builder::new("smollm");
    let mut repeated = tokens();
    repeated[270] = "h".into();
    let cases = [
        (base().with("tokenizer.ggml.model", string("t5")), "\"t5\""),
        (base().with("tokenizer.ggml.pre", string("martian")), "\"martian\""),
        (base().without("tokenizer.ggml.pre"), "tokenizer.ggml.pre"),
        (base().without("tokenizer.ggml.merges"), "tokenizer.ggml.merges"),
        (base().with("tokenizer.ggml.tokens", Value::U32(1)), "tokenizer.ggml.tokens"),
        (base().with("tokenizer.ggml.tokens", strings(&[])), "0 tokens"),
        (base().with("tokenizer.ggml.tokens", Value::Array(Array::String(repeated))), "\"h\" has two ids"),
        (base().with("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![1]))), "token_type has 1 entries"),
        (base().with("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![9; tokens().len()]))), "unknown type 9"),
        (base().with("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.0]))), "scores has 1 entries"),
        (base().with("tokenizer.ggml.merges", strings(&["h e", "he"])), "merge 1 (\"he\")"),
        (base().with("tokenizer.ggml.merges", strings(&["h zz"])), "\"zz\" is not in the vocabulary"),
        (base().with("tokenizer.ggml.merges", strings(&["x y"])), "\"xy\" is not in the vocabulary"),
        (base().with("tokenizer.ggml.merges", strings(&["h e", "h e"])), "twice"),
        (base().with("tokenizer.ggml.eos_token_id", Value::U32(5000)), "eos_token_id is 5000"),
        (base().with("tokenizer.ggml.bos_token_id", Value::U64(1 << 40)), "bos_token_id is 1099511627776"),
        (base().with("tokenizer.ggml.bos_token_id", Value::I32(-1)), "bos_token_id"),
        (
            base().without("tokenizer.ggml.eos_token_id").with("tokenizer.ggml.add_eos_token", Value::Bool(true)),
            "add_eos_token",
        ),
        (base().with("tokenizer.chat_template", Value::U32(1)), "tokenizer.chat_template"),
    ];
    for (builder, part) in cases {
        let message = builder.tokenizer().unwrap_err().to_string();
        assert!(message.contains(part), "{message:?} should contain {part:?}");
    }
}
