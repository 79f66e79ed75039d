//! Rebuilds a tokenizer from GGUF metadata: byte-level byte-pair encoding, or in SentencePiece's style.

mod sentence_piece;

use std::collections::{HashMap, HashSet};

use nanovllm_gguf::Metadata;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as HfTokenizer};

use self::sentence_piece::{ENDS_OF_TURNS, Kind};
use crate::chat::ChatTemplates;
use crate::error::Error;
use crate::parts::Parts;
use crate::post_processor;
use crate::pre_tokenizer::PreTokenizer;
use crate::settings::Settings;
use crate::special::SpecialTokens;

const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
/// Whether a text begins with the BOS token.
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";

/// Keys that name a token with a role, and the role.
pub(crate) const ROLE_KEYS: [(&str, &str); 7] = [
    (BOS, "bos_token"),
    (EOS, "eos_token"),
    ("tokenizer.ggml.unknown_token_id", "unk_token"),
    ("tokenizer.ggml.seperator_token_id", "sep_token"), // the format's spelling
    ("tokenizer.ggml.padding_token_id", "pad_token"),
    ("tokenizer.ggml.cls_token_id", "cls_token"),
    ("tokenizer.ggml.mask_token_id", "mask_token"),
];

/// Keys of other tokens that end a generation: those at the end of a turn and of a message.
pub(crate) const MORE_EOS_KEYS: [&str; 2] = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// A list of all tokens that end a generation. llama.cpp does not read it; ollama writes and reads it.
pub(crate) const EOS_LIST: &str = "tokenizer.ggml.eos_token_ids";

/// How an added token is matched, where that is not exactly as it is written.
pub(crate) type Flag = (&'static str, fn(&AddedToken) -> bool, fn(AddedToken, bool) -> AddedToken);

/// Keys of our own, since the format has none: lists of the ids of added tokens that take the white space before or
/// after them, that are matched as whole words only, and that are matched in the normalised text.
pub(crate) const FLAGS: [Flag; 4] = [
    ("nanovllm.tokenizer.lstrip_token_ids", |token| token.lstrip, AddedToken::lstrip),
    ("nanovllm.tokenizer.rstrip_token_ids", |token| token.rstrip, AddedToken::rstrip),
    ("nanovllm.tokenizer.single_word_token_ids", |token| token.single_word, AddedToken::single_word),
    ("nanovllm.tokenizer.normalized_token_ids", |token| token.normalized, AddedToken::normalized),
];

/// Builds the tokenizer that `metadata` describe.
pub(crate) fn load(metadata: &Metadata) -> Result<Parts, Error> {
    let model = metadata.str("tokenizer.ggml.model")?;
    match Kind::named(model) {
        Some(kind) => load_sentence_piece(metadata, kind),
        None if model == "gpt2" => load_byte_level(metadata),
        None => Err(Error::UnsupportedModel { model: model.to_owned() }),
    }
}

fn load_sentence_piece(metadata: &Metadata, kind: Kind) -> Result<Parts, Error> {
    let tokens = metadata.strings(TOKENS)?;
    let ids = index(tokens)?;
    let added = added_tokens(metadata, tokens)?;
    let mut special = special_tokens(metadata, tokens)?;
    let is_added = |token: &str| added.iter().any(|added| added.content == token);
    special
        .extend_eos(ENDS_OF_TURNS.iter().filter(|token| is_added(token)).filter_map(|token| ids.get(token).copied()));
    let bos = match kind {
        Kind::Llama => edge(metadata, ADD_BOS, true, BOS, tokens)?,
        // Whatever the file says: some were made that deny it, and llama.cpp overrules them.
        Kind::Gemma4 => {
            let bos = token_of(metadata, BOS, tokens)?;
            Some(bos.ok_or(Error::MissingSpecialToken { flag: ADD_BOS, key: BOS })?)
        }
    };
    let eos = edge(metadata, "tokenizer.ggml.add_eos_token", false, EOS, tokens)?;
    let templates = chat_templates(metadata)?;
    let mut tokenizer = sentence_piece::tokenizer(metadata, kind, tokens, &ids)?;
    tokenizer.add_tokens(added).map_err(Error::build)?;
    tokenizer.with_post_processor(post_processor::around(bos, eos)?);
    Ok(Parts { tokenizer, special, templates, settings: Settings::default() })
}

fn load_byte_level(metadata: &Metadata) -> Result<Parts, Error> {
    let pre = PreTokenizer::named(metadata.str("tokenizer.ggml.pre")?)?;
    let tokens = metadata.strings(TOKENS)?;
    let ids = index(tokens)?;
    let merges = merges(metadata.strings("tokenizer.ggml.merges")?, &ids)?;
    let added = added_tokens(metadata, tokens)?;
    let special = special_tokens(metadata, tokens)?;
    let bos = edge(metadata, ADD_BOS, pre.add_bos, BOS, tokens)?;
    let eos = edge(metadata, "tokenizer.ggml.add_eos_token", false, EOS, tokens)?;
    let templates = chat_templates(metadata)?;

    // Everything has been checked: what follows takes memory and time.
    let vocab: tokenizers::models::bpe::Vocab = ids.iter().map(|(token, id)| ((*token).to_owned(), *id)).collect();
    let bpe = BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(pre.ignore_merges).build();
    let mut tokenizer = HfTokenizer::new(bpe.map_err(Error::build)?);
    tokenizer
        .with_normalizer(pre.normalizer())
        .map_err(Error::build)?
        .with_pre_tokenizer(Some(pre.pre_tokenizer()?))
        .with_decoder(Some(ByteLevel::default()));
    tokenizer.add_tokens(added).map_err(Error::build)?;

    match post_processor::around(bos, eos)? {
        Some(around) => tokenizer.with_post_processor(Some(around)),
        None => tokenizer.with_post_processor(Some(ByteLevel::new(true, false, true))),
    };
    Ok(Parts { tokenizer, special, templates, settings: Settings::default() })
}

/// The id of each token.
fn index(tokens: &[String]) -> Result<HashMap<&str, u32>, Error> {
    let count = u32::try_from(tokens.len()).ok().filter(|count| *count > 0);
    let count = count.ok_or(Error::VocabularySize { got: tokens.len(), limit: u32::MAX })?;
    let mut ids = HashMap::with_capacity(tokens.len());
    for (token, id) in tokens.iter().zip(0..count) {
        if let Some(first) = ids.insert(token.as_str(), id) {
            return Err(Error::DuplicateToken { token: token.clone(), first, second: id });
        }
    }
    Ok(ids)
}

/// The merge rules in order of rank, each checked: both halves and their union are tokens, and no rule comes twice.
fn merges(rules: &[String], ids: &HashMap<&str, u32>) -> Result<Vec<(String, String)>, Error> {
    let mut seen = HashSet::with_capacity(rules.len());
    let mut merges = Vec::with_capacity(rules.len());
    for (index, rule) in rules.iter().enumerate() {
        let fail = |reason: String| Error::Merge { index, merge: rule.clone(), reason };
        // In the byte alphabet a token holds no space, so the first one separates.
        let (left, right) = rule.split_once(' ').ok_or_else(|| fail("expected two tokens and a space".to_owned()))?;
        for token in [left, right, &format!("{left}{right}")] {
            if !ids.contains_key(token) {
                return Err(fail(format!("{token:?} is not in the vocabulary")));
            }
        }
        if !seen.insert((left, right)) {
            return Err(fail("the rule appears twice".to_owned()));
        }
        merges.push((left.to_owned(), right.to_owned()));
    }
    Ok(merges)
}

/// Tokens matched in the text before it is cut into words: unknown (2) and control (3) tokens, which are special, and
/// user-defined ones (4), which are not. Without types every token is an ordinary one.
fn added_tokens(metadata: &Metadata, tokens: &[String]) -> Result<Vec<AddedToken>, Error> {
    if let Some(scores) = metadata.opt_f32s(SCORES)? {
        same_length(SCORES, tokens.len(), scores.len())?;
    }
    let Some(types) = metadata.opt_i32s(TOKEN_TYPE)? else { return Ok(Vec::new()) };
    same_length(TOKEN_TYPE, tokens.len(), types.len())?;
    let mut flagged = Vec::with_capacity(FLAGS.len());
    for (key, _, set) in FLAGS {
        let ids = listed(metadata, key, tokens)?;
        flagged.push((ids.into_iter().collect::<HashSet<u32>>(), set));
    }
    let flags = |id: usize, token: AddedToken| {
        let has = |ids: &HashSet<u32>| u32::try_from(id).is_ok_and(|id| ids.contains(&id));
        flagged.iter().fold(token, |token, (ids, set)| set(token, has(ids)))
    };
    let mut added = Vec::new();
    for (id, (token, token_type)) in tokens.iter().zip(types.iter()).enumerate() {
        match token_type {
            // Unless a list says otherwise the whole-text normaliser must not touch them: their text is matched as it
            // stands.
            2 | 3 => added.push(flags(id, AddedToken::from(token.as_str(), true))),
            4 => added.push(flags(id, AddedToken::from(token.as_str(), false))),
            0 | 1 | 5 | 6 => {}
            &token_type => return Err(Error::TokenType { id, token_type }),
        }
    }
    Ok(added)
}

/// Refuses a list under `key` that has not an entry for each of `expected` tokens.
fn same_length(key: &'static str, expected: usize, got: usize) -> Result<(), Error> {
    if got == expected { Ok(()) } else { Err(Error::Length { key, expected, got }) }
}

/// The token that `key` names, if it is there.
fn token_of<'a>(
    metadata: &Metadata,
    key: &'static str,
    tokens: &'a [String],
) -> Result<Option<post_processor::TokenAndId<'a>>, Error> {
    let Some(id) = metadata.opt_u64(key)? else { return Ok(None) };
    let token = usize::try_from(id).ok().and_then(|id| tokens.get(id));
    // `index` has made sure that every position fits u32.
    let token = token.ok_or(Error::SpecialTokenId { key, id, vocab_size: tokens.len() })?;
    Ok(Some((token, id as u32)))
}

fn special_tokens(metadata: &Metadata, tokens: &[String]) -> Result<SpecialTokens, Error> {
    let mut special = SpecialTokens::default();
    for (key, role) in ROLE_KEYS {
        if let Some((token, _)) = token_of(metadata, key, tokens)? {
            special.set(role, token);
        }
    }
    special.extend_eos(token_of(metadata, EOS, tokens)?.map(|(_, id)| id));
    special.extend_eos(listed(metadata, EOS_LIST, tokens)?);
    for key in MORE_EOS_KEYS {
        special.extend_eos(token_of(metadata, key, tokens)?.map(|(_, id)| id));
    }
    Ok(special)
}

/// The ids that `key` lists, each of which is a token's; none where there is no list.
fn listed(metadata: &Metadata, key: &'static str, tokens: &[String]) -> Result<Vec<u32>, Error> {
    let mut ids = Vec::new();
    for &id in metadata.opt_i32s(key)?.as_deref().unwrap_or_default() {
        let known = u32::try_from(id).ok().filter(|&id| (id as usize) < tokens.len());
        ids.push(known.ok_or(Error::ListedTokenId { key, id, vocab_size: tokens.len() })?);
    }
    Ok(ids)
}

/// The token that begins or ends a sequence, where `flag` (or `default`, without it) says so.
fn edge<'a>(
    metadata: &Metadata,
    flag: &'static str,
    default: bool,
    key: &'static str,
    tokens: &'a [String],
) -> Result<Option<post_processor::TokenAndId<'a>>, Error> {
    if !metadata.opt_bool(flag)?.unwrap_or(default) {
        return Ok(None);
    }
    token_of(metadata, key, tokens)?.map(Some).ok_or(Error::MissingSpecialToken { flag, key })
}

/// The default chat template, and those that are listed by name.
fn chat_templates(metadata: &Metadata) -> Result<ChatTemplates, Error> {
    let mut templates = ChatTemplates::default();
    if let Some(template) = metadata.opt_str("tokenizer.chat_template")? {
        templates.insert("default", template);
    }
    for name in metadata.opt_strings("tokenizer.chat_templates")?.unwrap_or_default() {
        if let Some(template) = metadata.opt_str(&format!("tokenizer.chat_template.{name}"))? {
            templates.insert(name, template);
        }
    }
    Ok(templates)
}
