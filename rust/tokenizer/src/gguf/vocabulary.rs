//! The tokens of a GGUF vocabulary: their ids, types, merges and roles, each checked.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use nanovllm_gguf::Metadata;
use tokenizers::AddedToken;

use super::{EOS, EOS_LIST, FLAGS, MERGES, MORE_EOS_KEYS, ROLE_KEYS, SCORES, TOKEN_TYPE, TOKENS, ends};
use crate::error::Error;
use crate::post_processor::TokenAndId;
use crate::special::SpecialTokens;

/// Ids that keys have where the file does not say.
pub(super) type DefaultIds = &'static [(&'static str, u64)];

/// A vocabulary, borrowed from the metadata.
pub(super) struct Vocabulary<'a> {
    pub(super) metadata: &'a Metadata,
    pub(super) tokens: &'a [String],
    /// The id of each token.
    pub(super) ids: HashMap<&'a str, u32>,
    default_ids: DefaultIds,
}

impl<'a> Vocabulary<'a> {
    /// Reads the tokens, no two of which may be equal.
    pub(super) fn read(metadata: &'a Metadata, default_ids: DefaultIds) -> Result<Self, Error> {
        let tokens = metadata.strings(TOKENS)?;
        Ok(Self { metadata, tokens, ids: index(tokens)?, default_ids })
    }

    /// The ids by token, as the library takes them.
    pub(super) fn owned(&self) -> tokenizers::models::bpe::Vocab {
        self.ids.iter().map(|(token, id)| ((*token).to_owned(), *id)).collect()
    }

    /// The merge rules in order of rank, each checked: both halves and their union are tokens, and no rule comes twice.
    pub(super) fn merges(&self) -> Result<Vec<(String, String)>, Error> {
        let rules = self.metadata.strings(MERGES)?;
        let mut seen = HashSet::with_capacity(rules.len());
        let mut merges = Vec::with_capacity(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            let fail = |reason: String| Error::Merge { index, merge: rule.clone(), reason };
            // No token that merges can make holds a space, so the first one separates.
            let (left, right) =
                rule.split_once(' ').ok_or_else(|| fail("expected two tokens and a space".to_owned()))?;
            for token in [left, right, &format!("{left}{right}")] {
                if !self.ids.contains_key(token) {
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

    /// The types of the tokens, if the file has them.
    pub(super) fn types(&self) -> Result<Option<Cow<'a, [i32]>>, Error> {
        let types = self.metadata.opt_i32s(TOKEN_TYPE)?;
        self.one_each(TOKEN_TYPE, types.as_ref().map(|types| types.len()))?;
        Ok(types)
    }

    /// The scores of the tokens, if the file has them.
    pub(super) fn scores(&self) -> Result<Option<Cow<'a, [f32]>>, Error> {
        let scores = self.metadata.opt_f32s(SCORES)?;
        self.one_each(SCORES, scores.as_ref().map(|scores| scores.len()))?;
        Ok(scores)
    }

    /// Refuses a list under `key`, where there is one, that has not an entry for each token.
    fn one_each(&self, key: &'static str, got: Option<usize>) -> Result<(), Error> {
        let expected = self.tokens.len();
        match got {
            Some(got) if got != expected => Err(Error::Length { key, expected, got }),
            _ => Ok(()),
        }
    }

    /// Tokens matched in the text before it is cut into words: unknown (2) and control (3) tokens, which are special,
    /// and user-defined ones (4), which are not. Without types every token is an ordinary one.
    pub(super) fn added_tokens(&self) -> Result<Vec<AddedToken>, Error> {
        self.scores()?; // read by no vocabulary of bytes, but refused in each where there are too few or too many
        let Some(types) = self.types()? else { return Ok(Vec::new()) };
        let mut flagged = Vec::with_capacity(FLAGS.len());
        for (key, _, set) in FLAGS {
            flagged.push((self.listed(key)?.into_iter().collect::<HashSet<u32>>(), set));
        }
        let flags = |id: usize, token: AddedToken| {
            let has = |ids: &HashSet<u32>| u32::try_from(id).is_ok_and(|id| ids.contains(&id));
            flagged.iter().fold(token, |token, (ids, set)| set(token, has(ids)))
        };
        // Converters have given ends the types of other tokens; llama.cpp overrules them.
        let ends: HashSet<&str> = self.ends()?.into_iter().collect();
        let mut added = Vec::new();
        for (id, (token, token_type)) in self.tokens.iter().zip(types.iter()).enumerate() {
            let special = matches!(token_type, 2 | 3) || ends.contains(token.as_str());
            match token_type {
                // Unless a list says otherwise the whole-text normaliser must not touch them: their text is matched as
                // it stands.
                2..=4 => added.push(flags(id, AddedToken::from(token.as_str(), special))),
                0 | 1 | 5 | 6 if special => added.push(flags(id, AddedToken::from(token.as_str(), special))),
                0 | 1 | 5 | 6 => {}
                &token_type => return Err(Error::TokenType { id, token_type }),
            }
        }
        Ok(added)
    }

    /// The ends of a generation by their text; none where the file lists its ends.
    fn ends(&self) -> Result<Vec<&'static str>, Error> {
        if self.lists_ends() {
            return Ok(Vec::new());
        }
        let types = self.types()?;
        let whole = |id: u32| types.as_ref().is_some_and(|types| (2..=4).contains(&types[id as usize]));
        Ok(ends::by_text(|text| self.ids.get(text).map(|&id| whole(id))))
    }

    /// Whether the file lists all tokens that end a generation.
    fn lists_ends(&self) -> bool {
        self.metadata.get(EOS_LIST).is_some()
    }

    /// The token that `key` names, if it is there.
    pub(super) fn token_of(&self, key: &'static str) -> Result<Option<TokenAndId<'a>>, Error> {
        // A file that lists its ends names its roles too.
        let default_ids = if self.lists_ends() { &[] } else { self.default_ids };
        let default = || default_ids.iter().find(|(name, _)| *name == key).map(|(_, id)| *id);
        let Some(id) = self.metadata.opt_u64(key)?.or_else(default) else { return Ok(None) };
        let token = usize::try_from(id).ok().and_then(|id| self.tokens.get(id));
        let token = token.ok_or(Error::SpecialTokenId { key, id, vocab_size: self.tokens.len() })?;
        // `index` has made sure that every position fits u32.
        Ok(Some((token, id as u32)))
    }

    /// The tokens with a role, and all that end a generation.
    pub(super) fn special_tokens(&self) -> Result<SpecialTokens, Error> {
        let mut special = SpecialTokens::default();
        for (key, role) in ROLE_KEYS {
            if let Some((token, _)) = self.token_of(key)? {
                special.set(role, token);
            }
        }
        special.extend_eos(self.token_of(EOS)?.map(|(_, id)| id));
        special.extend_eos(self.listed(EOS_LIST)?);
        for key in MORE_EOS_KEYS {
            special.extend_eos(self.token_of(key)?.map(|(_, id)| id));
        }
        let ids =
            |texts: Vec<&str>| texts.into_iter().filter_map(|text| self.ids.get(text).copied()).collect::<Vec<u32>>();
        special.extend_eos(ids(self.ends()?));
        if !self.lists_ends() {
            let not = ids(ends::not_ends(|text| self.ids.contains_key(text)));
            // A model whose only end it is keeps it.
            if special.eos_token_ids().iter().any(|id| !not.contains(id)) {
                special.drop_eos(&not);
            }
        }
        Ok(special)
    }

    /// The ids that `key` lists, each of which is a token's; none where there is no list.
    fn listed(&self, key: &'static str) -> Result<Vec<u32>, Error> {
        let mut ids = Vec::new();
        for &id in self.metadata.opt_i32s(key)?.as_deref().unwrap_or_default() {
            let known = u32::try_from(id).ok().filter(|&id| (id as usize) < self.tokens.len());
            ids.push(known.ok_or(Error::ListedTokenId { key, id, vocab_size: self.tokens.len() })?);
        }
        Ok(ids)
    }

    /// The token that begins or ends a sequence, where `flag` (or `default`, without it) says so.
    pub(super) fn edge(
        &self,
        flag: &'static str,
        default: bool,
        key: &'static str,
    ) -> Result<Option<TokenAndId<'a>>, Error> {
        if !self.metadata.opt_bool(flag)?.unwrap_or(default) {
            return Ok(None);
        }
        self.token_of(key)?.map(Some).ok_or(Error::MissingSpecialToken { flag, key })
    }
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
