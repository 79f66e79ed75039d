//! Vocabularies in SentencePiece's style: a space is `▁`, and what is no token is spelt out in bytes.
//!
//! `llama` has a score for each token, from which the merges follow: llama.cpp joins the two neighbours whose union has
//! the highest score. `gemma4` lists its merges. Both are rebuilt as transformers writes them to `tokenizer.json`: byte-pair
//! encoding with a normaliser that puts `▁` for spaces, and byte fallback.

use std::collections::HashMap;

use nanovllm_gguf::Metadata;
use serde_json::{Value as Json, json};
use tokenizers::models::bpe::BPE;
use tokenizers::{DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer as HfTokenizer};

use super::{SCORES, merges, same_length};
use crate::error::Error;

/// What stands for a space.
const SPACE: &str = "▁";

/// The most characters of a token that merges can make. It bounds the work: each character is a place to cut.
const MAX_CHARS: usize = 256;

/// The most merges for each token, on the average, and how many there may be whatever the tokens. Models have about two a
/// token; a file made for it has hundreds, each of which takes memory of its own.
const MERGES_PER_TOKEN: usize = 8;
const FEW_MERGES: usize = 1000;

/// Tokens at the end of a turn. llama.cpp finds them by their text where no key names them.
pub(super) const ENDS_OF_TURNS: [&str; 5] = ["<end_of_turn>", "<turn|>", "<|end|>", "<|eot_id|>", "<|im_end|>"];

/// The two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Llama,
    Gemma4,
}

impl Kind {
    /// The kind that `tokenizer.ggml.model` names.
    pub(super) fn named(model: &str) -> Option<Self> {
        match model {
            "llama" => Some(Self::Llama),
            "gemma4" => Some(Self::Gemma4),
            _ => None,
        }
    }
}

/// The tokenizer without its added tokens and without what is put around a text.
pub(super) fn tokenizer(
    metadata: &Metadata,
    kind: Kind,
    tokens: &[String],
    ids: &HashMap<&str, u32>,
) -> Result<HfTokenizer, Error> {
    let merges = match kind {
        Kind::Llama => scored_merges(metadata, tokens, ids)?,
        Kind::Gemma4 => merges(metadata.strings("tokenizer.ggml.merges")?, ids)?,
    };
    let prefix = metadata.opt_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(kind == Kind::Llama);
    let unknown = metadata.opt_u64("tokenizer.ggml.unknown_token_id")?;
    let unknown = unknown.and_then(|id| tokens.get(usize::try_from(id).ok()?));

    let vocab: tokenizers::models::bpe::Vocab = ids.iter().map(|(token, id)| ((*token).to_owned(), *id)).collect();
    let mut bpe = BPE::builder().vocab_and_merges(vocab, merges).byte_fallback(true).fuse_unk(true);
    if let Some(unknown) = unknown {
        bpe = bpe.unk_token(unknown.clone());
    }
    let mut tokenizer = HfTokenizer::new(bpe.build().map_err(Error::build)?);
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let prepend = json!({"type": "Prepend", "prepend": SPACE});
    let normalizer: Vec<&Json> = prefix.then_some(&prepend).into_iter().chain([&spaces]).collect();
    let mut decoder = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoder.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let normalizer: NormalizerWrapper = part(json!({"type": "Sequence", "normalizers": normalizer}))?;
    let decoder: DecoderWrapper = part(json!({"type": "Sequence", "decoders": decoder}))?;
    // As llama.cpp cuts a text of Gemma 4: no token holds both line ends and something else.
    let cut = json!({
        "type": "Split", "pattern": {"Regex": r"[^\n]+|\n+"}, "behavior": "Isolated", "invert": false
    });
    let pre_tokenizer: Option<PreTokenizerWrapper> = (kind == Kind::Gemma4).then(|| part(cut)).transpose()?;
    tokenizer
        .with_normalizer(Some(normalizer))
        .map_err(Error::build)?
        .with_pre_tokenizer(pre_tokenizer)
        .with_decoder(Some(decoder));
    Ok(tokenizer)
}

/// A part of the library's tokenizer from its JSON form, in which its fields have names.
fn part<T: serde::de::DeserializeOwned>(json: Json) -> Result<T, Error> {
    serde_json::from_value(json).map_err(|error| Error::Build(error.to_string()))
}

/// The merges that follow from the scores, in order of rank, as transformers' `generate_merges` has them: a merge for
/// each cut of a token into two tokens, the highest score first, and of equal ones the longest left half.
fn scored_merges(
    metadata: &Metadata,
    tokens: &[String],
    ids: &HashMap<&str, u32>,
) -> Result<Vec<(String, String)>, Error> {
    let scores = metadata.opt_f32s(SCORES)?;
    if let Some(scores) = &scores {
        same_length(SCORES, tokens.len(), scores.len())?;
    }
    let types = metadata.opt_i32s(super::TOKEN_TYPE)?;
    let mut found: Vec<(f32, usize, usize, u32, u32)> = Vec::new();
    for (id, token) in tokens.iter().enumerate() {
        let score = scores.as_ref().map_or(0.0, |scores| scores[id]);
        if score.is_nan() {
            return Err(Error::Score { id });
        }
        let chars = token.chars().count();
        if chars > MAX_CHARS {
            // Those that are matched in the text before it is cut need no merges.
            let is_added = types.as_ref().and_then(|types| types.get(id)).is_some_and(|kind| (2..=4).contains(kind));
            if is_added {
                continue;
            }
            return Err(Error::TokenLength { id, got: chars, limit: MAX_CHARS });
        }
        let mut cuts: Vec<(usize, usize, u32, u32)> = Vec::new();
        for (left_chars, (at, _)) in token.char_indices().enumerate().skip(1) {
            if let (Some(&left), Some(&right)) = (ids.get(&token[..at]), ids.get(&token[at..])) {
                cuts.push((left_chars, chars - left_chars, left, right));
            }
        }
        cuts.sort_by_key(|&(_, _, left, right)| (left, right));
        let limit = FEW_MERGES + MERGES_PER_TOKEN * tokens.len();
        if found.len() + cuts.len() > limit {
            return Err(Error::TooManyMerges { limit });
        }
        found.extend(cuts.into_iter().map(|(l, r, left, right)| (score, l, r, left, right)));
    }
    // Stable, so that what is equal stays in the order of ids.
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(b.2.cmp(&a.2)));
    let text = |id: u32| tokens[id as usize].clone();
    Ok(found.into_iter().map(|(_, _, _, left, right)| (text(left), text(right))).collect())
}
