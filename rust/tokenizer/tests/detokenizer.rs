//! Compares decoding a stream of ids with decoding them at once.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::sync::Arc;

use common::{Builder, id, tokens};
use nanovllm_tokenizer::{Detokenizer, Error, Tokenizer};
use proptest::prelude::*;

/// The pieces of a stream, and what is left at its end.
fn stream(tokenizer: &Arc<Tokenizer>, ids: &[u32], skip: bool) -> (Vec<String>, String) {
    let mut detokenizer = Detokenizer::new(Arc::clone(tokenizer), skip);
    let pieces = ids.iter().map(|id| detokenizer.push(*id).unwrap()).collect();
    (pieces, detokenizer.finish())
}

/// A SentencePiece-like tokenizer: `▁` for a space, byte tokens, the first space of a text dropped.
fn sentencepiece() -> Arc<Tokenizer> {
    let mut vocab: serde_json::Map<String, serde_json::Value> =
        (0..=255u32).map(|b| (format!("<0x{b:02X}>"), b.into())).collect();
    for (id, token) in (256u32..).zip(["▁", "▁Hello", "▁world", "!", "日", "lo", "<s>"]) {
        vocab.insert(token.into(), id.into());
    }
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null,
        "added_tokens": [{"id": 262, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocab, "merges": []},
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    Arc::new(Tokenizer::from_dir(dir.path()).unwrap())
}

proptest! {
    /// The ids may be any, broken characters included.
    #[test]
    fn pieces_join_to_the_decoded_text(ids in prop::collection::vec(0..tokens().len() as u32, 0..40), skip: bool) {
        let tokenizer = Arc::new(Builder::new("smollm").tokenizer().unwrap());
        let (pieces, rest) = stream(&tokenizer, &ids, skip);
        prop_assert_eq!(pieces.concat() + &rest, tokenizer.decode(&ids, skip).unwrap());
    }

    /// No text waits longer than it must: after the last byte of a character it is out, and nothing in it is broken.
    #[test]
    fn whole_characters_come_at_once(text in any::<String>()) {
        prop_assume!(!text.contains('\u{fffd}'));
        let tokenizer = Arc::new(Builder::new("smollm").tokenizer().unwrap());
        let (pieces, rest) = stream(&tokenizer, &tokenizer.encode(&text, false).unwrap(), false);
        prop_assert_eq!(pieces.concat(), text);
        prop_assert_eq!(rest, "");
        let broken = pieces.iter().any(|piece| piece.contains(char::REPLACEMENT_CHARACTER));
        prop_assert!(!broken);
    }

    /// Decoders that look at their neighbours: spaces are kept inside a text and dropped at its start.
    #[test]
    fn sentencepiece_streams_like_it_decodes(
        units in prop::collection::vec(
            prop::sample::select(vec![
                vec![256], vec![257], vec![258], vec![259], vec![260], vec![261], vec![262],
                vec![0xe6, 0x97, 0xa5], vec![0xf0, 0x9f, 0xa6, 0x80], vec![0x41],
            ]),
            0..20,
        ),
        skip: bool,
    ) {
        let tokenizer = sentencepiece();
        let ids = units.concat();
        let (pieces, rest) = stream(&tokenizer, &ids, skip);
        prop_assert_eq!(pieces.concat() + &rest, tokenizer.decode(&ids, skip).unwrap());
    }
}

#[test]
fn bytes_that_never_become_a_character_are_not_held_for_ever() {
    let mut detokenizer = Detokenizer::new(sentencepiece(), false);
    let out: String = (0..40).map(|_| detokenizer.push(0xff).unwrap()).collect();
    assert!(out.chars().count() >= 20, "{out:?}");
}

#[test]
fn an_unknown_id_leaves_the_stream_as_it_was() {
    let tokenizer = Arc::new(Builder::new("smollm").tokenizer().unwrap());
    let mut detokenizer = Detokenizer::new(tokenizer, false);
    assert_eq!(detokenizer.push(id("Ã")).unwrap(), "");
    assert!(matches!(detokenizer.push(9999), Err(Error::TokenId { id: 9999, .. })));
    assert_eq!(detokenizer.push(id("©")).unwrap(), "é");
}

#[test]
fn added_tokens_may_have_no_spaces_between_them() {
    let added = [0, 1].map(|id| {
        serde_json::json!({"id": id, "content": format!("<{id}>"), "single_word": false, "lstrip": false, "rstrip": false,
                           "normalized": false, "special": true})
    });
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null,
        "added_tokens": added,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": false},
        "model": {"type": "WordLevel", "vocab": {"<0>": 0, "<1>": 1, "a": 2}, "unk_token": "a"},
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    let tokenizer = Arc::new(Tokenizer::from_dir(dir.path()).unwrap());
    for (spaces, expected) in [(true, "<0> <1> a <1> <1> <0> a a"), (false, "<0><1> a <1><1><0> a a")] {
        let mut detokenizer = Detokenizer::new(Arc::clone(&tokenizer), false).with_spaces(spaces);
        let text: String = [0, 1, 2, 1, 1, 0, 2, 2].iter().map(|&id| detokenizer.push(id).unwrap()).collect();
        assert_eq!(text + &detokenizer.finish(), expected);
    }
}
