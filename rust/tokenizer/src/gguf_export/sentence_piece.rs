//! Tokenizers in SentencePiece's style as GGUF metadata.
//!
//! As a `llama` vocabulary where the merges are those that scores make, which is what SentencePiece's own models have; else
//! with the merges themselves, for which GGUF has two kinds: `gemma4`, of which every text begins with a token, and that of the
//! pre-tokenizer `sarvam-moe`. Neither begins a text with a space.

use std::collections::{BTreeSet, HashMap};

use nanovllm_gguf::{Array, Value};
use serde_json::{Value as Json, json};

use super::{BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED};
use crate::gguf::{LINES, MERGES, PREPEND_SCHEME, SCORES, SPACE, SPACE_PREFIX, merges_of_scores};

/// Gives the bytes, and the unknown token where it is matched in the text, their types.
pub(super) fn mark(types: &mut [i32], tokens: &[String], unknown: Option<&str>) {
    for (kind, token) in types.iter_mut().zip(tokens) {
        let is_byte = token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
        if *kind == NORMAL && is_byte {
            *kind = BYTE;
        } else if *kind == CONTROL && unknown == Some(token) {
            *kind = UNKNOWN;
        }
    }
}

/// The model, its scores or merges, and whether a text begins with a space. `begins` says whether it begins with a token.
pub(super) fn pairs(
    json: &Json,
    tokens: &[String],
    types: &[i32],
    merges: &[(String, String)],
    begins: bool,
) -> Result<Vec<(String, Value)>, &'static str> {
    if json["model"]["ignore_merges"] == true {
        return Err("it takes words that are tokens whole, whatever its merges say");
    }
    let prefix = Prefix::of(json).ok_or("its normaliser or its way of cutting words is not SentencePiece's")?;
    let mut pairs = vec![(SPACE_PREFIX.to_owned(), Value::Bool(!matches!(prefix, Prefix::None)))];
    if let Prefix::Metaspace(scheme) = prefix {
        pairs.push((PREPEND_SCHEME.to_owned(), Value::String(scheme.to_owned())));
    }
    let mut name = |model: &str, pre: &str| {
        pairs.push(("tokenizer.ggml.model".to_owned(), Value::String(model.to_owned())));
        pairs.push(("tokenizer.ggml.pre".to_owned(), Value::String(pre.to_owned())));
    };
    if let Some(scores) = scores(tokens, types, merges) {
        name("llama", "default");
        pairs.push((SCORES.to_owned(), Value::Array(Array::F32(scores))));
        return Ok(pairs);
    }
    match prefix {
        Prefix::None if begins => name("gemma4", "gemma4"),
        Prefix::None => name("gpt2", "sarvam-moe"),
        _ => return Err("no scores make its merges, and it begins a text with a space"),
    }
    let merges = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
    pairs.push((MERGES.to_owned(), Value::Array(Array::String(merges))));
    Ok(pairs)
}

/// Which stretches of a text begin with a space that they do not have.
#[derive(Clone, Copy)]
enum Prefix<'a> {
    None,
    /// All, whatever they begin with.
    Always,
    /// Those of a Metaspace with this scheme, unless they begin with one.
    Metaspace(&'a str),
}

impl<'a> Prefix<'a> {
    /// That of a tokenizer; none for normalisers and cuts that are not known.
    fn of(json: &'a Json) -> Option<Self> {
        let (normalizer, cut) = (&json["normalizer"], &json["pre_tokenizer"]);
        if cut["type"] == "Metaspace" && normalizer.is_null() && cut["split"] == false && cut["replacement"] == SPACE {
            return cut["prepend_scheme"].as_str().map(|s| if s == "never" { Self::None } else { Self::Metaspace(s) });
        }
        // Gemma's cut at spaces, of which its normaliser leaves none.
        let known = |pattern: &Json| *pattern == json!({"String": " "}) || *pattern == json!({"Regex": LINES});
        if !(cut.is_null() || cut["type"] == "Split" && known(&cut["pattern"])) {
            return None;
        }
        let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        let prepend = json!({"type": "Prepend", "prepend": SPACE});
        let steps = normalizer["normalizers"].as_array().map_or(std::slice::from_ref(normalizer), Vec::as_slice);
        match steps {
            [replace] if *replace == spaces => Some(Self::None),
            [first, replace] if *first == prepend && *replace == spaces => Some(Self::Always),
            _ => None,
        }
    }
}

/// Scores that make these merges, each token's the lower the later its first merge; none where no scores do.
///
/// Scores make a merge of every cut of a token into two tokens, and no other. Tokens whose merges are mixed with each other's
/// have one score. Among the merges of one token the order is the reader's, longest left half first, as scores have none.
fn scores(tokens: &[String], types: &[i32], merges: &[(String, String)]) -> Option<Vec<f32>> {
    let ids: HashMap<&str, u32> = tokens.iter().map(String::as_str).zip(0..).collect();
    let mut of: Vec<usize> = Vec::with_capacity(merges.len());
    let mut last = vec![None; tokens.len()];
    for (rank, (left, right)) in merges.iter().enumerate() {
        let id = *ids.get(format!("{left}{right}").as_str())? as usize;
        last[id] = Some(rank);
        of.push(id);
    }
    // Below those of all merged tokens, as SentencePiece has it for single characters.
    let mut scores: Vec<f32> = (0..tokens.len()).map(|id| -((merges.len() + id) as f32)).collect();
    let (mut first, mut end) = (0, None);
    for (rank, &id) in of.iter().enumerate() {
        if end.is_none_or(|end| rank > end) {
            first = rank;
        }
        scores[id] = -(first as f32);
        end = end.max(last[id]);
    }
    let is_added = |id: usize| [UNKNOWN, CONTROL, USER_DEFINED].contains(&types[id]);
    let made = merges_of_scores(tokens, &ids, |id| scores[id], is_added).ok()?;
    // No text is cut into an added token that is written without a space: it is matched whole before.
    let needless = |id: usize| is_added(id) && last[id].is_none() && !tokens[id].contains(SPACE);
    let union = |&(left, right): &(u32, u32)| {
        let union = format!("{}{}", tokens[left as usize], tokens[right as usize]);
        ids.get(union.as_str()).copied()
    };
    let mut made = made.iter().filter(|pair| union(pair).is_some_and(|id| !needless(id as usize)));
    // Token by token, the merges are the same; where tokens are mixed with each other, so is the order.
    let mut rank = 0;
    while rank < of.len() {
        let run = of[rank..].iter().take_while(|&&id| id == of[rank]).count();
        let stored: BTreeSet<_> =
            merges[rank..rank + run].iter().map(|(l, r)| (ids.get(l.as_str()), ids.get(r.as_str()))).collect();
        let made: BTreeSet<_> = made.by_ref().take(run).map(|(l, r)| (Some(l), Some(r))).collect();
        if stored != made {
            return None;
        }
        rank += run;
    }
    made.next().is_none().then_some(scores)
}
