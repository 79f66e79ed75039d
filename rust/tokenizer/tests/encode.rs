//! Pairs and truncation agree with the library's own, and a tokenizer survives being written and read.
#![allow(clippy::unwrap_used)] // tests

mod common;

use common::{Builder, id};
use nanovllm_tokenizer::{Cut, Error, Side, Tokenizer, Truncation};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::{Tokenizer as HfTokenizer, TruncationDirection, TruncationParams, TruncationStrategy};

/// A tokenizer of a directory whose post-processor is `post_processor`, and the library's own of the same file.
fn both(post_processor: &Value) -> (Tokenizer, HfTokenizer) {
    let dir = tempfile::tempdir().unwrap();
    let mut json: Value =
        serde_json::from_str(&Builder::new("smollm").tokenizer().unwrap().to_json().unwrap()).unwrap();
    json["post_processor"] = post_processor.clone();
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    (Tokenizer::from_dir(dir.path()).unwrap(), HfTokenizer::from_bytes(json.to_string()).unwrap())
}

/// Post-processors of the kinds that models have.
fn post_processors() -> Vec<Value> {
    let special = |token: &str| json!({"id": token, "ids": [id(token)], "tokens": [token]});
    let piece = |kind: &str, name: &str, type_id: u32| json!({kind: {"id": name, "type_id": type_id}});
    let [bos, eos] = ["<|bos|>", "<|eot|>"];
    vec![
        Value::Null,
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        json!({"type": "RobertaProcessing", "sep": [eos, id(eos)], "cls": [bos, id(bos)], "trim_offsets": true,
               "add_prefix_space": false}),
        json!({"type": "BertProcessing", "sep": [eos, id(eos)], "cls": [bos, id(bos)]}),
        json!({"type": "TemplateProcessing",
               "single": [piece("SpecialToken", bos, 0), piece("Sequence", "A", 0)],
               "pair": [piece("SpecialToken", bos, 0), piece("Sequence", "A", 0), piece("SpecialToken", eos, 1),
                        piece("Sequence", "B", 1)],
               "special_tokens": {bos: special(bos), eos: special(eos)}}),
    ]
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof!["[helo wrdab ]{0,12}", any::<String>().prop_map(|text| text.chars().take(12).collect())]
}

fn truncations() -> impl Strategy<Value = Truncation> {
    let cuts = prop::sample::select(vec![Cut::LongestFirst, Cut::OnlyFirst, Cut::OnlySecond]);
    let sides = prop::sample::select(vec![Side::Left, Side::Right]);
    (0usize..24, cuts, sides).prop_map(|(max_length, cut, side)| Truncation { max_length, cut, side })
}

/// The library's truncation, which is a state of its tokenizer.
fn params(truncation: Truncation) -> TruncationParams {
    TruncationParams {
        max_length: truncation.max_length,
        strategy: match truncation.cut {
            Cut::LongestFirst => TruncationStrategy::LongestFirst,
            Cut::OnlyFirst => TruncationStrategy::OnlyFirst,
            Cut::OnlySecond => TruncationStrategy::OnlySecond,
        },
        direction: match truncation.side {
            Side::Left => TruncationDirection::Left,
            Side::Right => TruncationDirection::Right,
        },
        stride: 0,
    }
}

proptest! {
    #[test]
    fn pairs_and_truncation_are_the_library_s(
        post_processor in prop::sample::select(post_processors()),
        text in texts(),
        pair in prop::option::of(texts()),
        special in any::<bool>(),
        truncation in prop::option::of(truncations()),
    ) {
        let (tokenizer, mut library) = both(&post_processor);
        let added = tokenizer.num_special_tokens_to_add(pair.is_some());
        let got = tokenizer.encode_pair(&text, pair.as_deref(), special, truncation);
        if truncation.is_some_and(|truncation| truncation.max_length < added) && special {
            // The library computes a negative length.
            let refused = matches!(got, Err(Error::Truncation { .. }));
            prop_assert!(refused);
            return Ok(());
        }
        // Its check when it is told the truncation takes the special tokens for added, asked for or not.
        if truncation.is_none_or(|truncation| truncation.max_length >= tokenizer.num_special_tokens_to_add(false)) {
            // Told to truncate, version 0.23.2 leaves a text unread once it has enough of it, and then takes the wrong one of
            // a pair for the longer: both texts are read before.
            let alone = |text: &str| library.encode(text, false).unwrap();
            let (first, mut second) = (alone(&text), pair.as_deref().map(alone));
            if let Some(second) = &mut second {
                second.set_type_ids(vec![1; second.len()]); // as in a pair
            }
            library.with_truncation(truncation.map(params)).unwrap();
            let expected = library.post_process(first, second, special);
            match (got, expected) {
                (Ok(got), Ok(expected)) => {
                    prop_assert_eq!(got.ids(), expected.get_ids());
                    prop_assert_eq!(got.type_ids(), expected.get_type_ids());
                    if truncation.is_none() {
                        let whole = match &pair {
                            Some(pair) => library.encode((text.as_str(), pair.as_str()), special),
                            None => library.encode(text.as_str(), special),
                        }
                        .unwrap();
                        prop_assert_eq!(got.ids(), whole.get_ids());
                        prop_assert_eq!(got.type_ids(), whole.get_type_ids());
                        prop_assert_eq!(tokenizer.tokenize(&text, pair.as_deref(), special).unwrap(), expected.get_tokens());
                    }
                }
                (Err(Error::Truncation { .. }), Err(_)) => {}
                (got, expected) => prop_assert!(false, "{got:?}, where the library has {expected:?}"),
            }
        }
    }

    #[test]
    fn a_state_is_the_tokenizer(text in texts(), special in any::<bool>()) {
        let tokenizer = Builder::new("llama-bpe").tokenizer().unwrap();
        let copy = Tokenizer::from_state(&tokenizer.to_state().unwrap()).unwrap();
        let ids = tokenizer.encode(&text, special).unwrap();
        prop_assert_eq!(copy.encode(&text, special).unwrap(), ids.clone());
        prop_assert_eq!(copy.decode(&ids, special).unwrap(), tokenizer.decode(&ids, special).unwrap());
    }
}

#[test]
fn a_state_holds_all_that_the_files_say() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: Value| std::fs::write(dir.path().join(name), content.to_string()).unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), Builder::new("smollm").tokenizer().unwrap().to_json().unwrap())
        .unwrap();
    write(
        "tokenizer_config.json",
        json!({"eos_token": "<|im_end|>", "pad_token": "[absent]", "additional_special_tokens": ["hello"],
               "model_max_length": 512, "padding_side": "left", "truncation_side": "left", "model_input_names": ["x"],
               "clean_up_tokenization_spaces": true,
               "chat_template": [{"name": "default", "template": "a"}, {"name": "rag", "template": "b"}]}),
    );
    write("generation_config.json", json!({"eos_token_id": [7, id("<|im_end|>")]}));
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let state = tokenizer.to_state().unwrap();
    let copy = Tokenizer::from_state(&state).unwrap();
    assert_eq!(copy.to_state().unwrap(), state);
    assert_eq!((copy.settings(), copy.eos_token_ids()), (tokenizer.settings(), &[id("<|im_end|>"), 7][..]));
    assert_eq!(copy.special_tokens(), tokenizer.special_tokens());
    assert_eq!((copy.pad_token(), copy.additional_special_tokens()), (Some("[absent]"), vec!["hello"]));
    assert_eq!((copy.chat_template(), copy.vocab_size()), (Some("a"), tokenizer.vocab_size()));
}

#[test]
fn what_is_no_state_is_refused() {
    let state = Builder::new("smollm").tokenizer().unwrap().to_state().unwrap();
    for text in ["", "{}", "[1]", &state[1..], &state.replace("\"eos_token\"", "\"end_token\"")] {
        assert!(matches!(Tokenizer::from_state(text), Err(Error::State(_))), "{text:.40}");
    }
}

#[test]
fn tokens_become_text_again() {
    let tokenizer = Builder::new("smollm").tokenizer().unwrap();
    let tokens = |text: &str| tokenizer.tokenize(text, None, false).unwrap();
    assert_eq!(tokens("hello world"), ["hello", "Ġworld"]);
    for text in ["hello world", "", "naïve 😀"] {
        assert_eq!(tokenizer.convert_tokens_to_string(tokens(text)).unwrap(), text);
    }
}
