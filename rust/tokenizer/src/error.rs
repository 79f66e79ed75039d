//! What can go wrong between text and tokens.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A file that is not the JSON it should be.
    #[error("{} is not valid: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The error of the JSON parser.
        source: serde_json::Error,
    },
    /// A `tokenizer.json` that describes no tokenizer.
    #[error("{} does not describe a tokenizer: {reason}", path.display())]
    TokenizerJson {
        /// The file.
        path: PathBuf,
        /// The message of the `tokenizers` library.
        reason: String,
    },
    /// An added token that `tokenizer_config.json` puts where it cannot go.
    #[error(
        "added token {token:?} has id {declared} in tokenizer_config.json, but its place in the vocabulary is {actual}"
    )]
    AddedTokenId {
        /// The token.
        token: String,
        /// The id in `tokenizer_config.json`.
        declared: u32,
        /// The id it would get.
        actual: u32,
    },
    /// GGUF metadata that is missing or of the wrong type.
    #[error(transparent)]
    Gguf(#[from] nanovllm_gguf::Error),
    /// A GGUF vocabulary of a kind this crate cannot rebuild.
    #[error("tokenizer.ggml.model is {model:?}; supported are \"gpt2\", \"llama\" and \"gemma4\"")]
    UnsupportedModel {
        /// The value of `tokenizer.ggml.model`.
        model: String,
    },
    /// A pre-tokenizer that is not known here. Guessing would give wrong tokens silently.
    #[error("tokenizer.ggml.pre is {pre:?}, which is not supported; the known types are {known}")]
    UnknownPreTokenizer {
        /// The value of `tokenizer.ggml.pre`.
        pre: String,
        /// The types that are known, separated by commas.
        known: String,
    },
    /// Two arrays with an entry for each token that are not equally long.
    #[error("{key} has {got} entries, but tokenizer.ggml.tokens has {expected}")]
    Length {
        /// The metadata key.
        key: &'static str,
        /// How many tokens the vocabulary has.
        expected: usize,
        /// How many entries there are.
        got: usize,
    },
    /// A token type outside llama.cpp's enumeration.
    #[error("token {id} has unknown type {token_type} (0 to 6 are defined)")]
    TokenType {
        /// The token's id.
        id: usize,
        /// The type found.
        token_type: i32,
    },
    /// A token that merges would have to be found for, and is too long for it.
    #[error("token {id} has {got} characters; at most {limit} are supported")]
    TokenLength {
        /// The token's id.
        id: usize,
        /// How many characters it has.
        got: usize,
        /// How many it may have.
        limit: usize,
    },
    /// A vocabulary whose tokens are parts of each other more often than any model's.
    #[error("the tokens make more than {limit} merges, the most that are supported for so many")]
    TooManyMerges {
        /// How many there may be.
        limit: usize,
    },
    /// A score that is no number.
    #[error("the score of token {id} is not a number")]
    Score {
        /// The token's id.
        id: usize,
    },
    /// A token that appears twice.
    #[error("token {token:?} has two ids, {first} and {second}")]
    DuplicateToken {
        /// The token.
        token: String,
        /// Its first id.
        first: u32,
        /// Its second id.
        second: u32,
    },
    /// A vocabulary without tokens, or with more than 2^32.
    #[error("the vocabulary has {got} tokens; 1 to {limit} are supported")]
    VocabularySize {
        /// How many tokens there are.
        got: usize,
        /// The most supported.
        limit: u32,
    },
    /// A merge rule that cannot be applied.
    #[error("merge {index} ({merge:?}): {reason}")]
    Merge {
        /// Its rank.
        index: usize,
        /// The rule as stored.
        merge: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A special token that points outside the vocabulary.
    #[error("{key} is {id}, outside the vocabulary of {vocab_size} tokens")]
    SpecialTokenId {
        /// The metadata key.
        key: &'static str,
        /// The id found.
        id: u64,
        /// How many tokens the vocabulary has.
        vocab_size: usize,
    },
    /// A list of tokens that points outside the vocabulary.
    #[error("{key} lists {id}, outside the vocabulary of {vocab_size} tokens")]
    ListedTokenId {
        /// The metadata key.
        key: &'static str,
        /// The id found.
        id: i32,
        /// How many tokens the vocabulary has.
        vocab_size: usize,
    },
    /// A sequence is to begin or end with a token the vocabulary does not name.
    #[error("{flag} asks for a token that {key} does not give")]
    MissingSpecialToken {
        /// The flag that asks.
        flag: &'static str,
        /// The key that should name the token.
        key: &'static str,
    },
    /// A value in a configuration file that has no meaning there.
    #[error("{}: {key} is {value}; expected {expected}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What was found.
        value: String,
        /// What it has to be.
        expected: &'static str,
    },
    /// More chat templates than any model needs.
    #[error("{} has more than {limit} chat templates", path.display())]
    TooManyTemplates {
        /// The folder.
        path: PathBuf,
        /// How many there may be.
        limit: usize,
    },
    /// GGUF has no way to write this tokenizer.
    #[error("the tokenizer cannot be written to GGUF: {reason}")]
    NoGgufForm {
        /// What cannot be expressed.
        reason: String,
    },
    /// The `tokenizers` library refused the parts.
    #[error("cannot build the tokenizer: {0}")]
    Build(String),
    /// The `tokenizers` library could not encode, decode or serialise.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A sequence that cannot be cut to the length asked for.
    #[error("max_length is {max_length}, to which the sequence cannot be truncated: {reason}")]
    Truncation {
        /// The length.
        max_length: usize,
        /// Why it cannot be reached.
        reason: String,
    },
    /// What is no text of [`Tokenizer::to_state`](crate::Tokenizer::to_state).
    #[error("this is not the state of a tokenizer: {0}")]
    State(String),
    /// An id to be decoded that no token has.
    #[error("token id {id} is not in the vocabulary of {vocab_size} tokens")]
    TokenId {
        /// The id.
        id: u32,
        /// How many tokens there are, added ones included.
        vocab_size: usize,
    },
    /// A chat was to be rendered without a template.
    #[error(
        "the model has no chat template (chat_template.jinja, tokenizer_config.json or tokenizer.chat_template in \
         GGUF metadata); pass one explicitly"
    )]
    NoChatTemplate,
    /// Several templates, none of which is the one asked for.
    #[error("the model has no chat template named {name:?}; it has {known}")]
    UnknownChatTemplate {
        /// The name asked for.
        name: String,
        /// The names there are, separated by commas.
        known: String,
    },
    /// Messages that are not a list.
    #[error("chat messages must be a list of objects with a role and content, got {got}")]
    Messages {
        /// The JSON type found.
        got: &'static str,
    },
    /// A template variable that the chat itself defines.
    #[error("{name:?} cannot be an extra template variable: the chat defines it")]
    ReservedVariable {
        /// The variable.
        name: String,
    },
    /// The template refused the messages with `raise_exception`.
    #[error("the chat template refused the messages: {0}")]
    TemplateRefused(String),
    /// The template has a syntax error or failed while it ran.
    #[error("chat template, line {line}: {message}")]
    Template {
        /// The line, counted from 1; 0 when unknown.
        line: usize,
        /// What happened.
        message: String,
    },
    /// The template exceeds a limit: templates come with models, and a model may be anybody's.
    #[error("chat template: {what} is limited to {limit}, which it exceeds")]
    TemplateLimit {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: usize,
    },
    /// The caller did not wait for the template to end.
    #[error("the chat template was interrupted")]
    TemplateInterrupted,
    /// There is no thread to render the template on.
    #[error("cannot start a thread for the chat template: {0}")]
    TemplateThread(std::io::Error),
}

impl Error {
    /// The error for parts that the `tokenizers` library refused.
    #[allow(clippy::needless_pass_by_value)] // an argument of map_err
    pub(crate) fn build(error: tokenizers::Error) -> Self {
        Self::Build(error.to_string())
    }
}
