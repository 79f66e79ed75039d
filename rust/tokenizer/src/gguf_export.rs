//! Describes a tokenizer as the GGUF metadata that [`crate::gguf`] rebuilds it from.
//!
//! What GGUF has no key for is found by rebuilding: whatever the rebuilt tokenizer does otherwise is lost, and named.

mod sentence_piece;

use std::collections::BTreeSet;

use nanovllm_gguf::{Array, Metadata, Value};
use serde_json::Value as Json;
use tokenizers::tokenizer::{Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};
use tokenizers::{NormalizedString, NormalizerWrapper, PreTokenizerWrapper};

use crate::chat::DEFAULT;
use crate::error::Error;
use crate::gguf::{self, EOS_LIST, FLAGS, MERGES, MORE_EOS_KEYS, ROLE_KEYS, TOKEN_TYPE, TOKENS};
use crate::parts::Parts;
use crate::pre_tokenizer::{self, PreTokenizer};
use crate::special::ROLES;

/// The values of `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// A text that the pre-tokenizers cut differently: cases, contractions, digits, many spaces, punctuation before letters
/// and line ends, scripts with and without spaces, combining marks that a normaliser would join, tokens of pictures.
const SAMPLE: &str = "It'S we'll I'M ev'de 1234567 12  34 a1234b x  y    z\t\tfn main() {\n\n  fooBar-Baz'd a/b/c:\r\n\r\n #é \
    e\u{301}a\u{308}! 日本語のテキスト 漢字1２ हिन्दी ภาษาไทย 한국어 ㄅㄆ ñandú! $5+<=>^~|`` ok` \u{1f680}…\n \n \u{1d5ba}\u{1c5}  \
    IMGIMGABZ<sentinel:7>;;\n";

/// A tokenizer as GGUF metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufTokenizer {
    /// The metadata.
    pub pairs: Vec<(String, Value)>,
    /// What the tokenizer that is rebuilt from them lacks or does otherwise, a phrase each.
    pub lost: Vec<String>,
}

/// The metadata of a vocabulary of `rows` tokens, and what they lack.
pub(crate) fn export(parts: &Parts, rows: usize) -> Result<GgufTokenizer, Error> {
    let pairs = pairs(parts, rows)?;
    let mut metadata = Metadata::default();
    for (key, value) in &pairs {
        metadata.set(key, value.clone());
    }
    let lost = lost(parts, &gguf::load(&metadata)?)?;
    Ok(GgufTokenizer { pairs, lost })
}

/// What `after`, rebuilt from the metadata of `before`, lacks or does otherwise.
fn lost(before: &Parts, after: &Parts) -> Result<Vec<String>, Error> {
    let mut lost = Vec::new();
    for role in ROLES {
        if let Some(token) = before.special.get(role).filter(|&token| after.special.get(role) != Some(token)) {
            lost.push(format!("the {role} {token:?}, which is no token of the model"));
        }
    }
    let kept = after.special.eos_token_ids();
    for id in before.special.eos_token_ids().iter().filter(|id| !kept.contains(id)) {
        lost.push(format!("the end-of-sequence id {id}, which is no token of the model"));
    }
    for id in kept.iter().filter(|id| !before.special.eos_token_ids().contains(id)) {
        lost.push(format!("that a generation does not end at the id {id}"));
    }
    let added = |parts: &Parts| {
        let tokens = parts.tokenizer.get_added_tokens_decoder().into_iter();
        let told =
            tokens.map(|(id, t)| (id, t.content.clone(), [t.special, t.lstrip, t.rstrip, t.single_word, t.normalized]));
        told.collect::<BTreeSet<_>>()
    };
    let rebuilt = added(after);
    for (_, token, _) in added(before).into_iter().filter(|token| !rebuilt.contains(token)) {
        lost.push(format!("how the added token {token:?} is matched"));
    }
    for (name, _) in before.templates.iter().filter(|&template| !after.templates.iter().any(|kept| kept == template)) {
        lost.push(format!("the chat template {name:?}"));
    }
    let fail = |e: tokenizers::Error| Error::Tokenizer(e.to_string());
    let ids = |parts: &Parts, special| {
        parts.tokenizer.encode_fast(SAMPLE, special).map(|encoding| encoding.get_ids().to_vec()).map_err(fail)
    };
    let (text, around) = (ids(before, false)?, ids(before, true)?);
    if ids(after, false)? != text {
        lost.push("how some texts are cut into tokens".to_owned());
    } else if ids(after, true)? != around {
        lost.push("the tokens that are put around a text".to_owned());
    }
    let tokens = before.tokenizer.get_added_tokens_decoder();
    let token = tokens.iter().filter(|(_, token)| !token.single_word).min_by_key(|(id, _)| **id);
    for text in [" x".to_owned(), token.map_or(String::new(), |(_, token)| format!("a{0}b{0} c", token.content))] {
        let ids = |parts: &Parts| parts.tokenizer.encode_fast(text.as_str(), false).map(|e| e.get_ids().to_vec());
        if ids(before).map_err(fail)? != ids(after).map_err(fail)? {
            lost.push(format!("how a text such as {text:?} is cut into tokens"));
        }
    }
    let decode = |parts: &Parts| parts.tokenizer.decode(&text, false).map_err(fail);
    if decode(before)? != decode(after)? {
        lost.push("how some tokens are decoded".to_owned());
    }
    Ok(lost)
}

/// The `tokenizer.*` pairs of a vocabulary of `rows` tokens, one for each row of the model's embedding: ids without a
/// token get one that is marked unused.
fn pairs(parts: &Parts, rows: usize) -> Result<Vec<(String, Value)>, Error> {
    let fail = |reason: &str| Error::NoGgufForm { reason: reason.to_owned() };
    let json = parts.tokenizer.to_string(false).map_err(|e| Error::Tokenizer(e.to_string()))?;
    let json: Json = serde_json::from_str(&json).map_err(|e| Error::Build(e.to_string()))?;
    let model = &json["model"];
    if model["type"] != "BPE" {
        return Err(fail("only vocabularies of byte-pair encoding can be written"));
    }
    let (tokens, mut types) = vocabulary(&json, rows).map_err(|reason| fail(&reason))?;
    let merges = merges(model).ok_or_else(|| fail("a merge is not a pair of tokens"))?;
    let mut pairs = if model["byte_fallback"] == true {
        sentence_piece::mark(&mut types, &tokens, model["unk_token"].as_str());
        sentence_piece::pairs(&json, &tokens, &types, &merges, edges(parts)?.0).map_err(fail)?
    } else {
        let pre = name(&parts.tokenizer, model["ignore_merges"] == true)?;
        vec![
            ("tokenizer.ggml.model".to_owned(), Value::String("gpt2".to_owned())),
            ("tokenizer.ggml.pre".to_owned(), Value::String(pre.to_owned())),
            (MERGES.to_owned(), Value::Array(Array::String(merges.iter().map(|(l, r)| format!("{l} {r}")).collect()))),
        ]
    };
    pairs.push((TOKENS.to_owned(), Value::Array(Array::String(tokens))));
    pairs.push((TOKEN_TYPE.to_owned(), Value::Array(Array::I32(types))));
    let mut id_of = |key: &str, id: Option<u32>| {
        if let Some(id) = id {
            pairs.push((key.to_owned(), Value::U32(id)));
        }
    };
    for (key, role) in ROLE_KEYS {
        let unknown = if role == "unk_token" { model["unk_token"].as_str() } else { None };
        let token = parts.special.get(role).or(unknown);
        id_of(key, token.and_then(|token| parts.tokenizer.token_to_id(token)).filter(|&id| (id as usize) < rows));
    }
    // What else ends a generation: llama.cpp has room for the end of a turn and of a message, and others read a list.
    let eos = parts.special.get("eos_token").and_then(|token| parts.tokenizer.token_to_id(token));
    let ids = parts.special.eos_token_ids().iter().copied().filter(|&id| (id as usize) < rows);
    let mut others = ids.clone().filter(|&id| Some(id) != eos);
    for key in MORE_EOS_KEYS {
        id_of(key, others.next());
    }
    let all: Vec<u32> = ids.collect();
    // Even if there are none, so that no other token is taken for an end because of its text.
    pairs.push((EOS_LIST.to_owned(), Value::Array(Array::U32(all))));
    for (key, has, _) in FLAGS {
        let tokens = parts.tokenizer.get_added_tokens_decoder();
        let flagged = tokens.iter().filter(|&(&id, token)| (id as usize) < rows && has(token));
        let ids: BTreeSet<u32> = flagged.map(|(id, _)| *id).collect();
        if !ids.is_empty() {
            pairs.push((key.to_owned(), Value::Array(Array::U32(ids.into_iter().collect()))));
        }
    }
    let (bos, eos) = edges(parts)?;
    pairs.push(("tokenizer.ggml.add_bos_token".to_owned(), Value::Bool(bos)));
    pairs.push(("tokenizer.ggml.add_eos_token".to_owned(), Value::Bool(eos)));
    if let Some(template) = parts.templates.default_template() {
        pairs.push(("tokenizer.chat_template".to_owned(), Value::String(template.to_owned())));
    }
    let named: Vec<_> = parts.templates.iter().filter(|(name, _)| *name != DEFAULT).collect();
    if !named.is_empty() {
        let names = named.iter().map(|(name, _)| (*name).to_owned()).collect();
        pairs.push(("tokenizer.chat_templates".to_owned(), Value::Array(Array::String(names))));
    }
    for (name, template) in named {
        pairs.push((format!("tokenizer.chat_template.{name}"), Value::String(template.to_owned())));
    }
    Ok(pairs)
}

/// The tokens by id, and their types.
fn vocabulary(json: &Json, rows: usize) -> Result<(Vec<String>, Vec<i32>), String> {
    let entry = |id: &Json, token: &str| {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|&id| id < rows);
        id.ok_or_else(|| format!("the token {token:?} has no row among the model's {rows}"))
    };
    let mut tokens: Vec<String> = (0..rows).map(|id| format!("[PAD{id}]")).collect();
    let mut types = vec![UNUSED; rows];
    let model = &json["model"];
    for (token, id) in model["vocab"].as_object().into_iter().flatten() {
        let id = entry(id, token)?;
        tokens[id].clone_from(token);
        types[id] = NORMAL;
    }
    for added in json["added_tokens"].as_array().into_iter().flatten() {
        let token = added["content"].as_str().unwrap_or_default();
        // Some models come with tokens beyond their rows, which nothing can be made of.
        if added["id"].as_u64().is_none_or(|id| id >= rows as u64) && model["vocab"].get(token).is_none() {
            continue;
        }
        let id = entry(&added["id"], token)?;
        token.clone_into(&mut tokens[id]);
        types[id] = if added["special"] == true { CONTROL } else { USER_DEFINED };
    }
    Ok((tokens, types))
}

/// Merge rules, from either way of writing them.
fn merges(model: &Json) -> Option<Vec<(String, String)>> {
    let rule = |rule: &Json| match rule {
        Json::String(text) => text.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned())),
        Json::Array(pair) => match pair.as_slice() {
            [left, right] => Some((left.as_str()?.to_owned(), right.as_str()?.to_owned())),
            _ => None,
        },
        _ => None,
    };
    model["merges"].as_array()?.iter().map(rule).collect()
}

/// Whether encoding puts a token before and after a text.
fn edges(parts: &Parts) -> Result<(bool, bool), Error> {
    let encode = |special| parts.tokenizer.encode_fast("a", special).map_err(|e| Error::Tokenizer(e.to_string()));
    let (with, without) = (encode(true)?, encode(false)?);
    let (with, without) = (with.get_ids(), without.get_ids());
    let at = with.windows(without.len().max(1)).position(|part| part == without).unwrap_or(0);
    Ok((at > 0, with.len() > at + without.len()))
}

/// The name of the pre-tokenizer that cuts the sample as `tokenizer` does.
fn name(tokenizer: &tokenizers::Tokenizer, ignore_merges: bool) -> Result<&'static str, Error> {
    let wanted = words(tokenizer.get_normalizer(), tokenizer.get_pre_tokenizer())?;
    for row in pre_tokenizer::TABLE.iter().filter(|row| row.ignore_merges == ignore_merges) {
        let (normalizer, cut) = (row.normalizer(), row.pre_tokenizer()?);
        if words(normalizer.as_ref(), Some(&cut))? == wanted
            && let Some(name) = PreTokenizer::names(row).first()
        {
            return Ok(name);
        }
    }
    let reason = "no pre-tokenizer that GGUF has a name for cuts text as this one does".to_owned();
    Err(Error::NoGgufForm { reason })
}

/// The words of the sample, once it is normalised and cut.
fn words(normalizer: Option<&NormalizerWrapper>, cut: Option<&PreTokenizerWrapper>) -> Result<Vec<String>, Error> {
    let fail = |e: tokenizers::Error| Error::Tokenizer(e.to_string());
    let mut text = NormalizedString::from(SAMPLE);
    if let Some(normalizer) = normalizer {
        normalizer.normalize(&mut text).map_err(fail)?;
    }
    let mut pieces = PreTokenizedString::from(text);
    if let Some(cut) = cut {
        cut.pre_tokenize(&mut pieces).map_err(fail)?;
    }
    let splits = pieces.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
    Ok(splits.into_iter().map(|(word, _, _)| word.to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_tells_the_cuts_apart() {
        let mut seen: Vec<(Vec<String>, bool, &str)> = Vec::new();
        for row in pre_tokenizer::TABLE {
            let words = words(row.normalizer().as_ref(), Some(&row.pre_tokenizer().unwrap())).unwrap();
            let same = seen.iter().find(|(other, ignore, _)| *other == words && *ignore == row.ignore_merges);
            // Those that differ in nothing but the token before a text, which has a key of its own.
            let expected = if row.names()[0] == "glm4" { Some("llama-bpe") } else { None };
            assert_eq!(same.map(|(_, _, name)| *name), expected, "{:?}", row.names());
            seen.push((words, row.ignore_merges, row.names()[0]));
        }
    }
}
