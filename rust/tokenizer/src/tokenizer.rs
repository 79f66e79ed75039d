//! The tokenizer as callers see it, whichever files it was loaded from.

use std::collections::BTreeSet;
use std::path::Path;

use tokenizers::{Decoder as _, EncodeInput, ModelWrapper, PostProcessor as _, Tokenizer as HfTokenizer};

use crate::chat::{ChatOptions, render, variables};
use crate::encode::{self, Encoded, Truncation};
use crate::error::Error;
use crate::gguf_export::GgufTokenizer;
use crate::library::{caught, guarded};
use crate::parts::Parts;
use crate::settings::Settings;
use crate::special::ROLES;
use crate::{directory, gguf, gguf_export, state};

/// A vocabulary with its rules for encoding and decoding, its special tokens and its chat templates.
///
/// Immutable after loading and `Send + Sync`: share it in an [`Arc`](std::sync::Arc).
pub struct Tokenizer {
    parts: Parts,
    vocab_size: usize,
}

impl Tokenizer {
    /// Loads a Hugging Face directory: `tokenizer.json`, and where present `tokenizer_config.json` (special tokens,
    /// added tokens, chat template, [`Settings`]), `special_tokens_map.json`, `chat_template.jinja`,
    /// `additional_chat_templates/*.jinja`, `config.json` and `generation_config.json` (end-of-sequence ids).
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Json`], [`Error::TokenizerJson`], [`Error::Config`], [`Error::AddedTokenId`],
    /// [`Error::TooManyTemplates`], [`Error::MissingSpecialToken`].
    pub fn from_dir(dir: &Path) -> Result<Self, Error> {
        directory::load(dir).map(Self::new)
    }

    /// Rebuilds the tokenizer that GGUF metadata describe (`tokenizer.*` keys): byte-level BPE, or in SentencePiece's style.
    ///
    /// # Errors
    /// [`Error::Gguf`] for missing keys and wrong types, [`Error::UnsupportedModel`], [`Error::UnknownPreTokenizer`],
    /// [`Error::Length`], [`Error::TokenType`], [`Error::TokenLength`], [`Error::TooManyMerges`], [`Error::Score`],
    /// [`Error::DuplicateToken`], [`Error::VocabularySize`], [`Error::Merge`], [`Error::SpecialTokenId`], [`Error::MissingSpecialToken`].
    pub fn from_gguf(metadata: &nanovllm_gguf::Metadata) -> Result<Self, Error> {
        gguf::load(metadata).map(Self::new)
    }

    /// Rebuilds the tokenizer that [`to_state`](Self::to_state) has written.
    ///
    /// # Errors
    /// [`Error::State`] for any other text.
    pub fn from_state(text: &str) -> Result<Self, Error> {
        state::read(text).map(Self::new)
    }

    /// All of the tokenizer as JSON, special tokens, settings and chat templates included, for the same version of this
    /// crate to read.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the library cannot serialise it.
    pub fn to_state(&self) -> Result<String, Error> {
        state::write(&self.parts)
    }

    fn new(parts: Parts) -> Self {
        // Counting walks the whole vocabulary, so it is done once.
        let vocab_size = parts.tokenizer.get_vocab_size(true);
        Self { parts, vocab_size }
    }

    /// GGUF metadata that describe this tokenizer for a model whose embedding has `rows` rows, and what they lack:
    /// [`from_gguf`](Self::from_gguf) reads them back.
    ///
    /// # Errors
    /// [`Error::NoGgufForm`] for a vocabulary that is neither byte-level BPE nor in SentencePiece's style, has ordinary
    /// tokens past `rows`, or cuts words in a way that GGUF has no name for; those of [`from_gguf`](Self::from_gguf).
    pub fn to_gguf(&self, rows: usize) -> Result<GgufTokenizer, Error> {
        gguf_export::export(&self.parts, rows)
    }

    /// The ids of `text`. Special tokens written out in `text` become their ids; with `add_special_tokens` the sequence
    /// also gets the beginning and end tokens the model asks for (transformers' default).
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the library cannot encode it.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, Error> {
        guarded(|| self.parts.tokenizer.encode_fast(text, add_special_tokens))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(Error::Tokenizer)
    }

    /// The ids of `text`, followed by those of `pair` where there is one; cut as `truncation` says.
    ///
    /// # Errors
    /// [`Error::Truncation`] where that is not possible; [`Error::Tokenizer`] when the library cannot encode it.
    pub fn encode_pair(
        &self,
        text: &str,
        pair: Option<&str>,
        add_special_tokens: bool,
        truncation: Option<Truncation>,
    ) -> Result<Encoded, Error> {
        caught(|| encode::encode(&self.parts.tokenizer, text, pair, add_special_tokens, truncation))
            .map_err(Error::Tokenizer)?
    }

    /// The tokens of `text`, followed by those of `pair`, written as the vocabulary writes them; where the vocabulary lacks
    /// a part of the text, some models give that part.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the library cannot encode it.
    pub fn tokenize(&self, text: &str, pair: Option<&str>, add_special_tokens: bool) -> Result<Vec<String>, Error> {
        let input = pair.map_or_else(|| text.into(), |pair| EncodeInput::from((text, pair)));
        let encoding = self.inner().encode(input, add_special_tokens).map_err(|e| Error::Tokenizer(e.to_string()))?;
        Ok(encoding.get_tokens().to_vec())
    }

    /// How many tokens encoding with `add_special_tokens` puts around and between the texts of a sequence.
    pub fn num_special_tokens_to_add(&self, is_pair: bool) -> usize {
        self.inner().get_post_processor().map_or(0, |processor| processor.added_tokens(is_pair))
    }

    /// The text of tokens, written as the vocabulary writes them: what the decoder makes of them, else the tokens with
    /// spaces in between.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the library cannot decode.
    pub fn convert_tokens_to_string(&self, tokens: Vec<String>) -> Result<String, Error> {
        match self.inner().get_decoder() {
            Some(decoder) => decoder.decode(tokens).map_err(|e| Error::Tokenizer(e.to_string())),
            None => Ok(tokens.join(" ")),
        }
    }

    /// The text of `ids`; bytes that are no UTF-8 become U+FFFD. Nothing is "cleaned up": encoding and decoding a text
    /// gives the text, up to the tokenizer's own normalisation and bytes its vocabulary lacks, which encoding drops.
    ///
    /// # Errors
    /// [`Error::TokenId`] for an id that no token has; [`Error::Tokenizer`] when the library cannot decode.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, Error> {
        ids.iter().try_for_each(|id| self.token(*id).map(|_| ()))?;
        guarded(|| self.parts.tokenizer.decode(ids, skip_special_tokens)).map_err(Error::Tokenizer)
    }

    /// The tokenizer as the JSON of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the library cannot serialise it.
    pub fn to_json(&self) -> Result<String, Error> {
        guarded(|| self.parts.tokenizer.to_string(false)).map_err(Error::Tokenizer)
    }

    /// How many tokens there are, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of `token`, written as the vocabulary writes it (in the byte alphabet, `Ġ` for a space).
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.parts.tokenizer.token_to_id(token)
    }

    /// The token with this id, written as the vocabulary writes it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.parts.tokenizer.id_to_token(id)
    }

    /// Whether the model is byte-pair encoding, whose tokens hold their own spaces.
    pub fn is_bpe(&self) -> bool {
        matches!(self.inner().get_model(), ModelWrapper::BPE(_))
    }

    /// Defaults of methods that encode and decode.
    pub fn settings(&self) -> &Settings {
        &self.parts.settings
    }

    /// The tokens with a role, under transformers' names of the roles and in its order, that are in the vocabulary.
    pub fn special_tokens(&self) -> Vec<(&'static str, &str)> {
        let tokens = ROLES.into_iter().filter_map(|role| Some((role, self.parts.special.get(role)?)));
        tokens.filter(|(_, token)| self.token_to_id(token).is_some()).collect()
    }

    /// Further special tokens that the files list, as far as they are in the vocabulary.
    pub fn additional_special_tokens(&self) -> Vec<&str> {
        let tokens = self.parts.special.additional().iter().map(String::as_str);
        tokens.filter(|token| self.token_to_id(token).is_some()).collect()
    }

    /// Every id that ends a generation, the tokenizer's own first.
    pub fn eos_token_ids(&self) -> &[u32] {
        self.parts.special.eos_token_ids()
    }

    /// The beginning-of-sequence token.
    pub fn bos_token(&self) -> Option<&str> {
        self.parts.special.get("bos_token")
    }

    /// The end-of-sequence token.
    pub fn eos_token(&self) -> Option<&str> {
        self.parts.special.get("eos_token")
    }

    /// The padding token.
    pub fn pad_token(&self) -> Option<&str> {
        self.parts.special.get("pad_token")
    }

    /// The id of [`bos_token`](Self::bos_token).
    pub fn bos_token_id(&self) -> Option<u32> {
        self.token_to_id(self.bos_token()?)
    }

    /// The tokenizer's own end-of-sequence id; a model may have more ([`eos_token_ids`](Self::eos_token_ids)).
    pub fn eos_token_id(&self) -> Option<u32> {
        self.token_to_id(self.eos_token()?)
    }

    /// The id of [`pad_token`](Self::pad_token).
    pub fn pad_token_id(&self) -> Option<u32> {
        self.token_to_id(self.pad_token()?)
    }

    /// The source of the chat template used by default, if the model has one.
    pub fn chat_template(&self) -> Option<&str> {
        self.parts.templates.default_template()
    }

    /// Renders `messages`, a JSON array of objects (`role`, `content`, ...), into the prompt text.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`], [`Error::UnknownChatTemplate`], [`Error::Messages`], [`Error::ReservedVariable`],
    /// [`Error::TemplateRefused`] when the template raises, [`Error::TemplateLimit`] when it is too large, too deep, too
    /// slow or wants too much memory, [`Error::Template`] for anything else in it, [`Error::TemplateThread`].
    pub fn apply_chat_template(&self, messages: &serde_json::Value, options: &ChatOptions) -> Result<String, Error> {
        self.apply_chat_template_while(messages, options, &mut || true)
    }

    /// As [`apply_chat_template`](Self::apply_chat_template), for as long as `go_on`, which is asked every few hundredths of
    /// a second, says so.
    ///
    /// # Errors
    /// [`Error::TemplateInterrupted`] once it does not, and those of [`apply_chat_template`](Self::apply_chat_template).
    pub fn apply_chat_template_while(
        &self,
        messages: &serde_json::Value,
        options: &ChatOptions,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<String, Error> {
        let template = self.parts.templates.select(options)?;
        render(template, &self.parts.special, messages, options, go_on)
    }

    /// The names that the template chosen by `options` reads and does not set itself: what [`ChatOptions::extra`] can have
    /// an effect by, the chat's own variables, and functions.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`], [`Error::UnknownChatTemplate`]; [`Error::Template`] for one that is malformed.
    pub fn chat_template_variables(&self, options: &ChatOptions) -> Result<BTreeSet<String>, Error> {
        variables(self.parts.templates.select(options)?)
    }

    /// The tokenizer of the `tokenizers` library.
    pub(crate) fn inner(&self) -> &HfTokenizer {
        &self.parts.tokenizer
    }

    /// The token with this id, or [`Error::TokenId`].
    pub(crate) fn token(&self, id: u32) -> Result<String, Error> {
        self.id_to_token(id).ok_or(Error::TokenId { id, vocab_size: self.vocab_size })
    }
}

impl std::fmt::Debug for Tokenizer {
    /// Leaves out the vocabulary.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("special", &self.parts.special)
            .finish_non_exhaustive()
    }
}
