//! Rebuilds a tokenizer from GGUF metadata: byte-level byte-pair encoding, or in SentencePiece's style.

mod ends;
mod sentence_piece;
mod vocabulary;

use nanovllm_gguf::Metadata;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as HfTokenizer};

use self::sentence_piece::Kind;
pub(crate) use self::sentence_piece::merges_of_scores;
use self::vocabulary::Vocabulary;
use crate::chat::ChatTemplates;
use crate::error::Error;
use crate::parts::Parts;
use crate::post_processor;
use crate::pre_tokenizer::PreTokenizer;
use crate::settings::Settings;

pub(crate) const TOKENS: &str = "tokenizer.ggml.tokens";
pub(crate) const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
pub(crate) const SCORES: &str = "tokenizer.ggml.scores";
pub(crate) const MERGES: &str = "tokenizer.ggml.merges";
/// Whether a text begins with a space that it does not have.
pub(crate) const SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
/// A key of our own, since the format has none: which stretches of a text a Metaspace puts a space before, `first` or
/// `always`, unless they begin with one.
pub(crate) const PREPEND_SCHEME: &str = "nanovllm.tokenizer.prepend_scheme";
/// The cut of vocabularies that list their merges.
pub(crate) const LINES: &str = r"[^\n]+|\n+";
/// What stands for a space in SentencePiece's style.
pub(crate) const SPACE: &str = "▁";
/// Whether a text begins with the BOS token.
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const BOS: &str = "tokenizer.ggml.bos_token_id";
/// Whether a text ends with the EOS token.
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";

/// Keys that name a token with a role, and the role.
pub(crate) const ROLE_KEYS: [(&str, &str); 7] = [
    (BOS, "bos_token"),
    (EOS, "eos_token"),
    (UNKNOWN, "unk_token"),
    ("tokenizer.ggml.seperator_token_id", "sep_token"), // the format's spelling
    ("tokenizer.ggml.padding_token_id", "pad_token"),
    ("tokenizer.ggml.cls_token_id", "cls_token"),
    ("tokenizer.ggml.mask_token_id", "mask_token"),
];

/// Keys of other tokens that end a generation: those at the end of a turn and of a message.
pub(crate) const MORE_EOS_KEYS: [&str; 2] = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// A list of all tokens that end a generation. llama.cpp does not read it; ollama writes and reads it. Where it stands, no
/// token is an end because of its text.
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
    let pre = metadata.opt_str("tokenizer.ggml.pre")?;
    match Kind::named(model, pre) {
        Some(kind) => load_sentence_piece(metadata, kind),
        None if model == "gpt2" => load_byte_level(metadata),
        None => Err(Error::UnsupportedModel { model: model.to_owned() }),
    }
}

fn load_sentence_piece(metadata: &Metadata, kind: Kind) -> Result<Parts, Error> {
    let vocabulary = Vocabulary::read(metadata, kind.default_ids())?;
    let added = vocabulary.added_tokens()?;
    let special = vocabulary.special_tokens()?;
    let bos = match kind {
        Kind::Llama => vocabulary.edge(ADD_BOS, true, BOS)?,
        // Whatever the file says: some were made that deny it, and llama.cpp overrules them.
        Kind::Gemma4 => {
            let bos = vocabulary.token_of(BOS)?;
            Some(bos.ok_or(Error::MissingSpecialToken { flag: ADD_BOS, key: BOS })?)
        }
        Kind::Sarvam => vocabulary.edge(ADD_BOS, false, BOS)?,
    };
    let eos = vocabulary.edge(ADD_EOS, false, EOS)?;
    let templates = chat_templates(metadata)?;
    let mut tokenizer = sentence_piece::tokenizer(&vocabulary, kind)?;
    tokenizer.add_tokens(added).map_err(Error::build)?;
    tokenizer.with_post_processor(post_processor::around(bos, eos)?);
    Ok(Parts { tokenizer, special, templates, settings: Settings::default() })
}

fn load_byte_level(metadata: &Metadata) -> Result<Parts, Error> {
    let pre = PreTokenizer::named(metadata.str("tokenizer.ggml.pre")?)?;
    let vocabulary = Vocabulary::read(metadata, &[])?;
    let merges = vocabulary.merges()?;
    let added = vocabulary.added_tokens()?;
    let special = vocabulary.special_tokens()?;
    let bos = vocabulary.edge(ADD_BOS, pre.add_bos, BOS)?;
    let eos = vocabulary.edge(ADD_EOS, false, EOS)?;
    let templates = chat_templates(metadata)?;

    // Everything has been checked: what follows takes memory and time.
    let bpe = BPE::builder().vocab_and_merges(vocabulary.owned(), merges).ignore_merges(pre.ignore_merges).build();
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
