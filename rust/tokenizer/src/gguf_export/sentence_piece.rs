//! Tokenizers in SentencePiece's style as GGUF metadata.
//!
//! As a `llama` vocabulary where the merges are those that scores make, which is what SentencePiece's own models have; else
//! as a `gemma4` vocabulary, which lists its merges, but begins no text with a space.

use std::collections::HashMap;

use nanovllm_gguf::{Array, Value};
use serde_json::{Value as Json, json};

use super::{BYTE, NORMAL, UNKNOWN};
use crate::gguf::{MERGES, SCORES, SPACE, SPACE_PREFIX};

/// Gives the bytes and the unknown token their types.
pub(super) fn mark(types: &mut [i32], tokens: &[String], unknown: Option<&str>) {
    for (kind, token) in types.iter_mut().zip(tokens) {
        let is_byte = token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
        if *kind == NORMAL && is_byte {
            *kind = BYTE;
        } else if unknown == Some(token) {
            *kind = UNKNOWN;
        }
    }
}

/// The model, its scores or merges, and whether a text begins with a space.
pub(super) fn pairs(
    json: &Json,
    tokens: &[String],
    merges: &[(String, String)],
) -> Result<Vec<(String, Value)>, &'static str> {
    let prefix = prefix(json).ok_or("its normaliser or its way of cutting words is not SentencePiece's")?;
    let mut pairs = vec![(SPACE_PREFIX.to_owned(), Value::Bool(prefix))];
    if let Some(scores) = scores(tokens, merges) {
        pairs.push(("tokenizer.ggml.model".to_owned(), Value::String("llama".to_owned())));
        pairs.push(("tokenizer.ggml.pre".to_owned(), Value::String("default".to_owned())));
        pairs.push((SCORES.to_owned(), Value::Array(Array::F32(scores))));
    } else if prefix {
        return Err("its merges do not follow from scores, and it begins a text with a space");
    } else {
        let merges = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
        pairs.push(("tokenizer.ggml.model".to_owned(), Value::String("gemma4".to_owned())));
        pairs.push((MERGES.to_owned(), Value::Array(Array::String(merges))));
    }
    Ok(pairs)
}

/// Whether a text begins with a space that it does not have; none for normalisers and cuts that are not known.
fn prefix(json: &Json) -> Option<bool> {
    let (normalizer, cut) = (&json["normalizer"], &json["pre_tokenizer"]);
    if cut["type"] == "Metaspace" && normalizer.is_null() && cut["split"] == false && cut["replacement"] == SPACE {
        return Some(cut["prepend_scheme"] != "never");
    }
    // Gemma's cut at spaces, of which its normaliser leaves none.
    let no_cut = cut.is_null() || (cut["type"] == "Split" && cut["pattern"] == json!({"String": " "}));
    let lines = json!({"Regex": r"[^\n]+|\n+"});
    if !no_cut && cut["pattern"] != lines {
        return None;
    }
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let prepend = json!({"type": "Prepend", "prepend": SPACE});
    let steps = normalizer["normalizers"].as_array().map_or(std::slice::from_ref(normalizer), Vec::as_slice);
    match steps {
        [replace] if *replace == spaces => Some(false),
        [first, replace] if *first == prepend && *replace == spaces => Some(true),
        _ => None,
    }
}

/// Scores that make these merges, each token's the lower the later its first merge; none where no scores do.
///
/// Scores make a merge of every cut of a token into two tokens, and none of any other; the merges of one token stand
/// together, in whatever order.
fn scores(tokens: &[String], merges: &[(String, String)]) -> Option<Vec<f32>> {
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
    // Below those of all merged tokens, as SentencePiece has it for single characters.
    let mut scores: Vec<f32> = (0..tokens.len()).map(|id| -((merges.len() + id) as f32)).collect();
    let mut cuts = vec![0usize; tokens.len()];
    let mut last = None;
    for (rank, (left, right)) in merges.iter().enumerate() {
        let id = *ids.get(format!("{left}{right}").as_str())?;
        if last != Some(id) {
            if cuts[id] > 0 {
                return None;
            }
            scores[id] = -(rank as f32);
        }
        cuts[id] += 1;
        last = Some(id);
    }
    let possible = |token: &str| {
        let at = token.char_indices().skip(1);
        at.filter(|(at, _)| ids.contains_key(&token[..*at]) && ids.contains_key(&token[*at..])).count()
    };
    tokens.iter().zip(&cuts).all(|(token, cuts)| possible(token) == *cuts).then_some(scores)
}
