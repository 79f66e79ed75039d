//! Loads a tokenizer from a Hugging Face directory.
//!
//! `tokenizer.json` is the tokenizer; the files beside it say which tokens have a role. What transformers changes in
//! the tokenizer after loading it (tokens added by `tokenizer_config.json`, the BOS and EOS flags of the Llama family)
//! is done here too, so that the ids are the same.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer as HfTokenizer};

use crate::chat::{ChatTemplates, DEFAULT, MAX_SOURCE};
use crate::error::Error;
use crate::library::guarded;
use crate::parts::Parts;
use crate::post_processor;
use crate::settings::{Settings, Side};
use crate::special::{ROLES, SpecialTokens};

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
/// The most templates in `additional_chat_templates/`; models have two or three.
const MAX_TEMPLATES: usize = 64;

/// Loads what `dir` holds, of which only `tokenizer.json` has to be there.
pub(crate) fn load(dir: &Path) -> Result<Parts, Error> {
    let path = dir.join(TOKENIZER);
    let json = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    // The library panics over some files that are no JSON.
    serde_json::from_slice::<IgnoredAny>(&json).map_err(|source| Error::Json { path: path.clone(), source })?;
    let mut tokenizer = guarded(|| HfTokenizer::from_bytes(&json))
        .map_err(|reason| Error::TokenizerJson { path: path.clone(), reason })?;
    let config = object(dir, CONFIG)?;
    let (defaults, pad_token) = saved(&tokenizer);
    let settings = Settings::read(&config, defaults, &dir.join(CONFIG))?;
    // Files may carry the padding and truncation of whoever saved them, which would change the ids.
    tokenizer.with_padding(None).with_truncation(None).map_err(Error::build)?;

    add_declared_tokens(&mut tokenizer, dir, &config)?;
    let mut special = SpecialTokens::default();
    let map = object(dir, "special_tokens_map.json")?;
    for source in [&config, &map] {
        for role in ROLES {
            if let Some(token) = source.get(role).and_then(content) {
                special.set(role, token);
            }
        }
        special.extend_additional(additional(source));
    }
    if let Some(token) = pad_token.filter(|_| !config.contains_key("pad_token")) {
        special.set("pad_token", &token);
    }
    mark_special(&mut tokenizer, &special)?;
    set_edges(&mut tokenizer, &config, &special)?;

    special.extend_eos(special.get("eos_token").and_then(|token| tokenizer.token_to_id(token)));
    for file in ["config.json", "generation_config.json"] {
        special.extend_eos(eos_ids(dir, file)?);
    }
    Ok(Parts { tokenizer, special, templates: chat_templates(dir, &config)?, settings })
}

/// What transformers takes over from the padding and truncation in `tokenizer.json`: sides, and the padding token.
fn saved(tokenizer: &HfTokenizer) -> (Settings, Option<String>) {
    let (truncation, padding) = (tokenizer.get_truncation(), tokenizer.get_padding());
    let settings = Settings {
        truncation_side: truncation.and_then(|t| Side::named(t.direction.as_ref())).unwrap_or_default(),
        padding_side: padding.and_then(|p| Side::named(p.direction.as_ref())).unwrap_or_default(),
        ..Settings::default()
    };
    (settings, padding.map(|padding| padding.pad_token.clone()))
}

/// The special tokens without a role; transformers 5 calls the list `extra_special_tokens`.
fn additional(source: &Map<String, Value>) -> Vec<String> {
    let lists = ["additional_special_tokens", "extra_special_tokens"].map(|key| source.get(key));
    let tokens = lists.into_iter().flatten().filter_map(Value::as_array).flatten();
    tokens.filter_map(content).map(str::to_owned).collect()
}

/// The text of a file, or `None` where it is missing.
fn read_optional(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// The JSON object in a file that may be missing, in which case it is empty.
fn object(dir: &Path, file: &str) -> Result<Map<String, Value>, Error> {
    let path = dir.join(file);
    match read_optional(&path)? {
        Some(text) => serde_json::from_str(&text).map_err(|source| Error::Json { path, source }),
        None => Ok(Map::new()),
    }
}

/// A token written as a string or as an object with its `content`.
fn content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

fn is_added(tokenizer: &HfTokenizer, token: &str) -> bool {
    tokenizer.get_added_vocabulary().get_vocab().contains_key(token)
}

/// Adds the tokens of `added_tokens_decoder` that `tokenizer.json` lacks, in order of their ids.
fn add_declared_tokens(tokenizer: &mut HfTokenizer, dir: &Path, config: &Map<String, Value>) -> Result<(), Error> {
    const KEY: &str = "added_tokens_decoder";
    let Some(declared) = config.get(KEY).and_then(Value::as_object) else { return Ok(()) };
    let malformed = |value: String, expected| Error::Config { path: dir.join(CONFIG), key: KEY, value, expected };
    let mut tokens = Vec::with_capacity(declared.len());
    for (id, token) in declared {
        let id: u32 = id.parse().map_err(|_| malformed(format!("{id:?}"), "token ids as keys"))?;
        let text = content(token).ok_or_else(|| malformed(token.to_string(), "a token with its content"))?;
        if !is_added(tokenizer, text) {
            let flag = |name, default| token.get(name).and_then(Value::as_bool).unwrap_or(default);
            let special = flag("special", false);
            let token = AddedToken::from(text, special)
                .single_word(flag("single_word", false))
                .lstrip(flag("lstrip", false))
                .rstrip(flag("rstrip", false))
                .normalized(flag("normalized", !special));
            tokens.push((id, token));
        }
    }
    tokens.sort_by_key(|(id, _)| *id);
    for (declared, token) in tokens {
        let text = token.content.clone();
        tokenizer.add_tokens([token]).map_err(Error::build)?;
        match tokenizer.token_to_id(&text) {
            Some(actual) if actual != declared => {
                return Err(Error::AddedTokenId { token: text, declared, actual });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes sure that special tokens are matched whole in the text. One that is not in the vocabulary adds none, for the
/// model has no row for it.
fn mark_special(tokenizer: &mut HfTokenizer, special: &SpecialTokens) -> Result<(), Error> {
    let tokens: Vec<AddedToken> = special
        .iter()
        .map(|(_, token)| token)
        .chain(special.additional().iter().map(String::as_str))
        .filter(|token| tokenizer.token_to_id(token).is_some() && !is_added(tokenizer, token))
        .map(|token| AddedToken::from(token, true))
        .collect();
    tokenizer.add_special_tokens(tokens).map(|_| ()).map_err(Error::build)
}

/// Rebuilds the post-processor from the flags `add_bos_token` and `add_eos_token` where the class of the tokenizer does
/// so in transformers (Llama's and Gemma's); all others leave it.
fn set_edges(tokenizer: &mut HfTokenizer, config: &Map<String, Value>, special: &SpecialTokens) -> Result<(), Error> {
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    let flag = |key| config.get(key).and_then(Value::as_bool);
    let (add_bos, add_eos) = (flag("add_bos_token"), flag("add_eos_token"));
    let rebuilds = ["LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer"].contains(&class.trim_end_matches("Fast"));
    if !rebuilds || (add_bos.is_none() && add_eos.is_none()) {
        return Ok(());
    }
    let edge = |wanted: bool, flag, key| {
        if !wanted {
            return Ok(None);
        }
        let token = special.get(key).ok_or(Error::MissingSpecialToken { flag, key })?;
        let id = tokenizer.token_to_id(token).ok_or(Error::MissingSpecialToken { flag, key })?;
        Ok::<_, Error>(Some((token, id)))
    };
    let bos = edge(add_bos.unwrap_or(true), "add_bos_token", "bos_token")?;
    let eos = edge(add_eos.unwrap_or(false), "add_eos_token", "eos_token")?;
    let around = post_processor::around(bos, eos)?;
    tokenizer.with_post_processor(around);
    Ok(())
}

/// The `eos_token_id` of a configuration file, which may be missing, null, one id or a list. A model of text and images
/// may have it where its decoder is described.
fn eos_ids(dir: &Path, file: &'static str) -> Result<Vec<u32>, Error> {
    const KEY: &str = "eos_token_id";
    let config = object(dir, file)?;
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let found = config.get(KEY).filter(|value| !value.is_null()).or_else(|| config.get("text_config")?.get(KEY));
    let ids = match found {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(id).collect(),
        Some(value) => id(value).map(|id| vec![id]),
    };
    ids.ok_or_else(|| Error::Config {
        path: dir.join(file),
        key: KEY,
        value: found.map(ToString::to_string).unwrap_or_default(),
        expected: "a token id or a list of them",
    })
}

/// `chat_template.jinja` and the named ones of `additional_chat_templates/`, or else, where there is no such file, the
/// template or the list of named ones in `tokenizer_config.json`.
fn chat_templates(dir: &Path, config: &Map<String, Value>) -> Result<ChatTemplates, Error> {
    const KEY: &str = "chat_template";
    let mut templates = ChatTemplates::default();
    if let Some(template) = read_template(&dir.join("chat_template.jinja"))? {
        templates.insert(DEFAULT, &template);
    }
    for (name, path) in additional_templates(&dir.join("additional_chat_templates"))? {
        if let Some(template) = read_template(&path)? {
            templates.insert(&name, &template);
        }
    }
    if !templates.is_empty() {
        return Ok(templates);
    }
    let malformed = |value: &Value| Error::Config {
        path: dir.join(CONFIG),
        key: KEY,
        value: value.to_string(),
        expected: "a template or a list of objects with name and template",
    };
    match config.get(KEY) {
        None | Some(Value::Null) => {}
        Some(Value::String(template)) => templates.insert(DEFAULT, template),
        Some(Value::Array(list)) => {
            for entry in list {
                let text = |key| entry.get(key).and_then(Value::as_str).ok_or_else(|| malformed(entry));
                templates.insert(text("name")?, text("template")?);
            }
        }
        Some(other) => return Err(malformed(other)),
    }
    Ok(templates)
}

/// The templates in a folder that may be missing, sorted by name, which is the file's without `.jinja`.
fn additional_templates(folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let fail = |source| Error::Read { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => return Ok(Vec::new()),
        Err(source) => return Err(fail(source)),
    };
    let mut templates = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        if let Some(name) = entry.file_name().to_string_lossy().strip_suffix(".jinja") {
            templates.push((name.to_owned(), entry.path()));
        }
        if templates.len() > MAX_TEMPLATES {
            return Err(Error::TooManyTemplates { path: folder.to_owned(), limit: MAX_TEMPLATES });
        }
    }
    templates.sort();
    Ok(templates)
}

/// The text of a template, or `None` where the file is missing. Of one that is too large to be used only so much is read
/// as says so when it is used.
fn read_template(path: &Path) -> Result<Option<String>, Error> {
    let fail = |source| Error::Read { path: path.to_owned(), source };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(fail(source)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_SOURCE as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() > MAX_SOURCE {
        return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
    }
    String::from_utf8(bytes).map(Some).map_err(|error| fail(std::io::Error::new(ErrorKind::InvalidData, error)))
}
