//! Tokenizers rebuilt from vocabularies in SentencePiece's style, against an encoder that follows llama.cpp's definition.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::sync::Arc;

use common::{Builder, strings};
use nanovllm_gguf::{Array, Value};
use nanovllm_tokenizer::{Detokenizer, Error, Tokenizer};
use proptest::prelude::*;

/// Ordinary tokens with their scores: characters, then what they are joined to. No two scores are equal.
const ORDINARY: &[(&str, f32)] = &[
    ("▁", -20.0),
    ("a", -21.0),
    ("b", -22.0),
    ("c", -23.0),
    ("\n", -24.0),
    ("é", -25.0),
    ("日", -26.0),
    ("▁▁", -1.0),
    ("▁▁▁▁", -0.5),
    ("ab", -2.0),
    ("bc", -3.0),
    ("abc", -4.0),
    ("▁a", -5.0),
    ("▁ab", -1.5),
    ("\n\n", -2.5),
    ("aa", -6.0),
    ("aaa", -6.5),
    ("bca", -0.1),
];
const ADDED: [(&str, i32); 4] = [("<unk>", 2), ("<s>", 3), ("<end_of_turn>", 3), ("<b>", 4)];

/// The added tokens, 256 bytes, the ordinary ones.
fn tokens() -> Vec<String> {
    let added = ADDED.iter().map(|(token, _)| (*token).to_owned());
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    added.chain(bytes).chain(ORDINARY.iter().map(|(token, _)| (*token).to_owned())).collect()
}

fn builder() -> Builder {
    let scores = [vec![0.0; ADDED.len() + 256], ORDINARY.iter().map(|(_, score)| *score).collect()].concat();
    let types = [ADDED.iter().map(|(_, kind)| *kind).collect(), vec![6; 256], vec![1; ORDINARY.len()]].concat();
    Builder::new("default")
        .without("tokenizer.ggml.merges")
        .without("tokenizer.ggml.add_bos_token")
        .with("tokenizer.ggml.model", Value::String("llama".into()))
        .with("tokenizer.ggml.tokens", Value::Array(Array::String(tokens())))
        .with("tokenizer.ggml.scores", Value::Array(Array::F32(scores)))
        .with("tokenizer.ggml.token_type", Value::Array(Array::I32(types)))
        .with("tokenizer.ggml.unknown_token_id", Value::U32(0))
        .with("tokenizer.ggml.bos_token_id", Value::U32(1))
        .with("tokenizer.ggml.eos_token_id", Value::U32(1))
}

fn id(token: &str) -> u32 {
    tokens().iter().position(|known| known == token).unwrap() as u32
}

/// Joins the two neighbours whose union has the highest score, the leftmost of equal ones, until no union is a token.
fn join(word: &str) -> Vec<u32> {
    let mut parts: Vec<String> = word.chars().map(String::from).collect();
    let score = |token: &str| ORDINARY.iter().find(|(known, _)| *known == token).map(|(_, score)| *score);
    loop {
        let unions = (1..parts.len()).filter_map(|i| Some((score(&format!("{}{}", parts[i - 1], parts[i]))?, i)));
        let best = unions.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        let Some((_, i)) = best else { break };
        let right = parts.remove(i);
        parts[i - 1].push_str(&right);
    }
    let spelt = |part: &String| match score(part) {
        Some(_) => vec![id(part)],
        None => part.bytes().map(|byte| id(&format!("<0x{byte:02X}>"))).collect(),
    };
    parts.iter().flat_map(spelt).collect()
}

/// Encodes as llama.cpp does: added tokens are found first, and each stretch between them begins with a space.
fn encode(text: &str, prefix: bool) -> Vec<u32> {
    let mut ids = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let found = ADDED.iter().filter_map(|(token, _)| Some((rest.find(token)?, *token))).min();
        let (at, token) = found.unwrap_or((rest.len(), ""));
        if at > 0 {
            let space = if prefix { "▁" } else { "" };
            ids.extend(join(&format!("{space}{}", rest[..at].replace(' ', "▁"))));
        }
        if found.is_some() {
            ids.push(id(token));
        }
        rest = &rest[at + token.len()..];
    }
    ids
}

fn text() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "a",
        "b",
        "c",
        "ab",
        "abc",
        "bca",
        " ",
        "  ",
        "    ",
        "\n",
        "\n\n",
        "é",
        "日",
        "🦀",
        "x",
        "\t",
        "\0",
        "▁",
        "<s>",
        "<b>",
        "<end_of_turn>",
        "<unk>",
        "<0x41>",
    ]);
    prop_oneof![prop::collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat()), any::<String>()]
}

proptest! {
    #[test]
    fn ids_are_those_of_the_definition(text in text(), prefix: bool) {
        let tokenizer =
            builder().with("tokenizer.ggml.add_space_prefix", Value::Bool(prefix)).tokenizer().unwrap();
        let ids = tokenizer.encode(&text, false).unwrap();
        prop_assert_eq!(&ids, &encode(&text, prefix), "{:?}", text);
        let around = tokenizer.encode(&text, true).unwrap();
        prop_assert_eq!(around, [&[1], &ids[..]].concat(), "a text begins with the BOS token");
    }

    /// What is cut comes together again, whole and as a stream; of a text with a prefix but for the first space.
    #[test]
    fn texts_come_back(text in text(), prefix: bool) {
        prop_assume!(!text.contains('▁') && !text.contains("<0x") && !text.contains(char::REPLACEMENT_CHARACTER));
        prop_assume!(!prefix || ADDED.iter().all(|(token, _)| !text.contains(token)));
        let tokenizer =
            Arc::new(builder().with("tokenizer.ggml.add_space_prefix", Value::Bool(prefix)).tokenizer().unwrap());
        let ids = tokenizer.encode(&text, false).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), &text[..]);
        let mut stream = Detokenizer::new(Arc::clone(&tokenizer), false);
        let pieces: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        prop_assert_eq!(pieces + &stream.finish(), text);
    }

    /// Gemma 4 lists its merges, and has no prefix.
    #[test]
    fn listed_merges_count_in_their_order(text in text()) {
        let mut merges: Vec<(f32, String)> = Vec::new();
        for (token, score) in ORDINARY {
            for (at, _) in token.char_indices().skip(1) {
                if [&token[..at], &token[at..]].iter().all(|half| ORDINARY.iter().any(|(known, _)| known == half)) {
                    merges.push((*score, format!("{} {}", &token[..at], &token[at..])));
                }
            }
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0));
        let merges: Vec<&str> = merges.iter().map(|(_, merge)| merge.as_str()).collect();
        let tokenizer = builder()
            .with("tokenizer.ggml.model", Value::String("gemma4".into()))
            .with("tokenizer.ggml.merges", strings(&merges))
            .tokenizer()
            .unwrap();
        prop_assert_eq!(tokenizer.encode(&text, false).unwrap(), encode(&text, false), "{:?}", text);
    }
}

#[test]
fn the_end_of_a_turn_ends_a_generation() {
    let tokenizer = builder().tokenizer().unwrap();
    assert_eq!(tokenizer.eos_token_ids(), [1, id("<end_of_turn>")]);
    // Whatever its type.
    let types = Value::Array(Array::I32([vec![2, 3, 1, 4], vec![6; 256], vec![1; ORDINARY.len()]].concat()));
    assert_eq!(builder().with("tokenizer.ggml.token_type", types).tokenizer().unwrap().eos_token_ids(), [1, 2]);
}

#[test]
fn a_list_of_ends_is_the_whole_list() {
    let tokenizer = builder().with("tokenizer.ggml.eos_token_ids", Value::Array(Array::I32(vec![1, 3]))).tokenizer();
    assert_eq!(tokenizer.unwrap().eos_token_ids(), [1, 3]);
}

#[test]
fn roles_that_no_key_names_are_those_of_the_first_llama() {
    let keys = ["unknown_token_id", "bos_token_id", "eos_token_id"].map(|key| format!("tokenizer.ggml.{key}"));
    let builder = keys.iter().fold(builder(), |builder, key| builder.without(key));
    let tokenizer = builder.tokenizer().unwrap();
    assert_eq!(tokenizer.bos_token_id(), Some(1));
    assert_eq!(tokenizer.eos_token_ids(), [2]);
    assert_eq!(tokenizer.encode("a", true).unwrap(), [1, id("▁a")]);
}

/// Files whose model is `gpt2` may still have a vocabulary in this style: the pre-tokenizer says so.
#[test]
fn a_pre_tokenizer_can_name_the_style() {
    let tokenizer = |pre: &str| {
        let builder = builder()
            .with("tokenizer.ggml.model", Value::String("gpt2".into()))
            .with("tokenizer.ggml.pre", Value::String(pre.into()));
        builder.with("tokenizer.ggml.merges", strings(&["▁ a"])).tokenizer().unwrap()
    };
    assert_eq!(tokenizer("sarvam-moe").encode(" a", true).unwrap(), [id("▁a")]);
    assert_eq!(tokenizer("granite-embed-multi-311m").encode(" a", true).unwrap(), [1, id("▁a")]);
}

/// llama.cpp overrules files of Gemma 4 that deny it.
#[test]
fn a_text_of_gemma_4_begins_with_its_token_whatever_the_file_says() {
    let tokenizer = builder()
        .with("tokenizer.ggml.model", Value::String("gemma4".into()))
        .with("tokenizer.ggml.merges", strings(&[]))
        .with("tokenizer.ggml.add_bos_token", Value::Bool(false));
    assert_eq!(tokenizer.tokenizer().unwrap().encode("a", true).unwrap(), [1, id("a")]);
}

/// Every stretch of a text without repetitions is a token, so that each is cut everywhere.
#[test]
fn merges_without_bound_are_refused() {
    let text: Vec<char> = (0..120u32).map(|i| char::from_u32(0x4e00 + i).unwrap()).collect();
    let stretches = (1..=40).flat_map(|len| text.windows(len).map(|part| part.iter().collect::<String>()));
    let tokens =
        Value::Array(Array::String(["<unk>".to_owned(), "<s>".to_owned()].into_iter().chain(stretches).collect()));
    let refused = builder()
        .with("tokenizer.ggml.tokens", tokens)
        .without("tokenizer.ggml.scores")
        .without("tokenizer.ggml.token_type")
        .tokenizer();
    assert!(matches!(refused, Err(Error::TooManyMerges { .. })), "{refused:?}");
}

#[test]
fn what_is_wrong_is_named() {
    let scores =
        |scores: Vec<f32>| builder().with("tokenizer.ggml.scores", Value::Array(Array::F32(scores))).tokenizer();
    assert!(matches!(scores(vec![0.0; 3]), Err(Error::Length { got: 3, .. })));
    let mut with_nan = vec![0.0; tokens().len()];
    with_nan[270] = f32::NAN;
    assert!(matches!(scores(with_nan), Err(Error::Score { id: 270 })));
    let long = |index: usize| {
        let mut tokens = tokens();
        tokens[index] = "é".repeat(300);
        builder().with("tokenizer.ggml.tokens", Value::Array(Array::String(tokens))).tokenizer()
    };
    assert!(matches!(long(262), Err(Error::TokenLength { id: 262, got: 300, limit: 256 })));
    assert!(long(3).is_ok(), "an added token may be long, as it is matched whole");
    let unigram: Result<Tokenizer, Error> =
        builder().with("tokenizer.ggml.model", Value::String("t5".into())).tokenizer();
    assert!(matches!(unigram, Err(Error::UnsupportedModel { .. })));
}
