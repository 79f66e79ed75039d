//! Vocabularies in SentencePiece's style: a space is `▁`, and what is no token is spelt out in bytes.
//!
//! `llama` has a score for each token, from which the merges follow: llama.cpp joins the two neighbours whose union has
//! the highest score. The others list their merges. All are rebuilt as transformers writes them to `tokenizer.json`: byte-pair
//! encoding with a normaliser that puts `▁` for spaces, and byte fallback.

use std::collections::HashMap;

use serde_json::{Value as Json, json};
use tokenizers::models::bpe::BPE;
use tokenizers::{DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer as HfTokenizer};

use super::vocabulary::{DefaultIds, Vocabulary};
use super::{BOS, EOS, LINES, PREPEND_SCHEME, SPACE, SPACE_PREFIX, UNKNOWN};
use crate::error::Error;

/// The most characters of a token that merges can make. It bounds the work: each character is a place to cut.
const MAX_CHARS: usize = 256;

/// The most merges for each token, on the average, and how many there may be whatever the tokens. Models have about two a
/// token; a file made for it has hundreds, each of which takes memory of its own.
const MERGES_PER_TOKEN: usize = 8;
const FEW_MERGES: usize = 1000;

/// The kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Merges follow from scores.
    Llama,
    /// Merges are listed, and every text begins with the BOS token.
    Gemma4,
    /// As Gemma 4's, but texts begin as the file says.
    Sarvam,
}

impl Kind {
    /// The kind that `tokenizer.ggml.model` and `tokenizer.ggml.pre` name.
    pub(super) fn named(model: &str, pre: Option<&str>) -> Option<Self> {
        match (model, pre) {
            ("llama", _) => Some(Self::Llama),
            ("gemma4", _) | ("gpt2", Some("gemma4" | "granite-embed-multi-311m")) => Some(Self::Gemma4),
            ("gpt2", Some("sarvam-moe")) => Some(Self::Sarvam),
            _ => None,
        }
    }

    /// What tokens have a role where the file does not say: those of the first Llama.
    pub(super) fn default_ids(self) -> DefaultIds {
        match self {
            Self::Llama => &[(UNKNOWN, 0), (BOS, 1), (EOS, 2)],
            Self::Gemma4 | Self::Sarvam => &[],
        }
    }
}

/// The tokenizer without its added tokens and without what is put around a text.
///
/// Where a text begins with a space that it does not have (`tokenizer.ggml.add_space_prefix`), so does each stretch after
/// an added token, as in llama.cpp and in tokenizers of transformers with `legacy` set. Newer ones of transformers put it
/// before the first stretch alone, or only where there is none; files that we write say so, those of others cannot.
pub(super) fn tokenizer(vocabulary: &Vocabulary, kind: Kind) -> Result<HfTokenizer, Error> {
    let merges = if kind == Kind::Llama { scored_merges(vocabulary)? } else { vocabulary.merges()? };
    let prefix = vocabulary.metadata.opt_bool(SPACE_PREFIX)?.unwrap_or(kind == Kind::Llama);

    let mut bpe = BPE::builder().vocab_and_merges(vocabulary.owned(), merges).byte_fallback(true).fuse_unk(true);
    if let Some((unknown, _)) = vocabulary.token_of(UNKNOWN)? {
        bpe = bpe.unk_token(unknown.to_owned());
    }
    let mut tokenizer = HfTokenizer::new(bpe.build().map_err(Error::build)?);
    let scheme = vocabulary.metadata.opt_str(PREPEND_SCHEME)?;
    let (normalizer, cut) = match scheme {
        Some(scheme) => (None, Some(metaspace(scheme)?)),
        None => (Some(normalizer(prefix)?), (kind != Kind::Llama).then(lines).transpose()?),
    };
    let mut decoder = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoder.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let decoder: DecoderWrapper = part(json!({"type": "Sequence", "decoders": decoder}))?;
    tokenizer.with_normalizer(normalizer).map_err(Error::build)?.with_pre_tokenizer(cut).with_decoder(Some(decoder));
    Ok(tokenizer)
}

/// Spaces as `▁`, with one before each stretch if there is a `prefix`.
fn normalizer(prefix: bool) -> Result<NormalizerWrapper, Error> {
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let prepend = json!({"type": "Prepend", "prepend": SPACE});
    let steps: Vec<&Json> = prefix.then_some(&prepend).into_iter().chain([&spaces]).collect();
    part(json!({"type": "Sequence", "normalizers": steps}))
}

/// Spaces as `▁`, with one before stretches that do not begin with one: all, or the first of a text, as `scheme` says.
fn metaspace(scheme: &str) -> Result<PreTokenizerWrapper, Error> {
    part(json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": false}))
}

/// As llama.cpp cuts a text of Gemma 4: no token holds both line ends and something else.
fn lines() -> Result<PreTokenizerWrapper, Error> {
    part(json!({"type": "Split", "pattern": {"Regex": LINES}, "behavior": "Isolated", "invert": false}))
}

/// A part of the library's tokenizer from its JSON form, in which its fields have names.
fn part<T: serde::de::DeserializeOwned>(json: Json) -> Result<T, Error> {
    serde_json::from_value(json).map_err(|error| Error::Build(error.to_string()))
}

/// The merges that follow from a file's scores.
fn scored_merges(vocabulary: &Vocabulary) -> Result<Vec<(String, String)>, Error> {
    let Vocabulary { tokens, ids, .. } = vocabulary;
    let scores = vocabulary.scores()?;
    let types = vocabulary.types()?;
    let score = |id: usize| scores.as_ref().map_or(0.0, |scores| scores[id]);
    let is_added = |id: usize| types.as_ref().is_some_and(|types| (2..=4).contains(&types[id]));
    let text = |id: u32| tokens[id as usize].clone();
    let merges = merges_of_scores(tokens, ids, score, is_added)?;
    Ok(merges.into_iter().map(|(left, right)| (text(left), text(right))).collect())
}

/// The merges that follow from scores, in order of rank, as transformers' `generate_merges` has them: a merge for each cut
/// of a token into two tokens, the highest score first, and of equal ones the longest left half. Added tokens, which are
/// matched in the text before it is cut, need none, and may be of any length.
pub(crate) fn merges_of_scores(
    tokens: &[String],
    ids: &HashMap<&str, u32>,
    score: impl Fn(usize) -> f32,
    is_added: impl Fn(usize) -> bool,
) -> Result<Vec<(u32, u32)>, Error> {
    let mut found: Vec<(f32, usize, usize, u32, u32)> = Vec::new();
    for (id, token) in tokens.iter().enumerate() {
        let score = score(id);
        if score.is_nan() {
            return Err(Error::Score { id });
        }
        let chars = token.chars().count();
        if chars > MAX_CHARS {
            if is_added(id) {
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
    Ok(found.into_iter().map(|(_, _, _, left, right)| (left, right)).collect())
}
