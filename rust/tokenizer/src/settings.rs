//! What `tokenizer_config.json` says about encoding and decoding besides the tokens: defaults of transformers' methods.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Error;

/// A side of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Before the first token.
    Left,
    /// After the last token.
    #[default]
    Right,
}

impl Side {
    /// The side that transformers calls `name`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "left" => Some(Self::Left),
            "right" => Some(Self::Right),
            _ => None,
        }
    }

    /// Transformers' name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
        }
    }
}

/// Defaults of the methods that encode and decode, under transformers' names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The most tokens of a sequence; none where the files name no limit, or one that no model has (transformers writes
    /// 1e30 for "none").
    pub model_max_length: Option<u64>,
    /// Where shorter sequences are filled up.
    pub padding_side: Side,
    /// Where longer sequences are cut.
    pub truncation_side: Side,
    /// Whether decoded text loses spaces before punctuation.
    pub clean_up_tokenization_spaces: bool,
    /// What encoding returns unless it is told: `input_ids`, `attention_mask` and perhaps `token_type_ids`.
    pub model_input_names: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model_max_length: None,
            padding_side: Side::Right,
            truncation_side: Side::Right,
            clean_up_tokenization_spaces: false,
            model_input_names: vec!["input_ids".to_owned(), "attention_mask".to_owned()],
        }
    }
}

/// The largest length that transformers takes for a limit.
const LARGEST: f64 = 1e20;

/// The classes of transformers that fill up on the left unless the files say otherwise.
const LEFT_PADDED: [&str; 4] = ["LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer"];

impl Settings {
    /// Reads the object in the file at `path`. What it leaves open is as in `defaults`.
    pub(crate) fn read(config: &Map<String, Value>, defaults: Self, path: &Path) -> Result<Self, Error> {
        let reader = Reader { config, path };
        let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
        let padding_side =
            if LEFT_PADDED.contains(&class.trim_end_matches("Fast")) { Side::Left } else { defaults.padding_side };
        let limit = match reader.limit("model_max_length")? {
            None => reader.limit("max_len")?, // its name in old files
            found => found,
        };
        let names = reader.get("model_input_names", "a list of names", |value| {
            value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        })?;
        let side = |key| reader.get(key, "\"left\" or \"right\"", |value| Side::named(value.as_str()?));
        Ok(Self {
            model_max_length: limit.or(defaults.model_max_length).filter(|&length| length != u64::MAX),
            padding_side: side("padding_side")?.unwrap_or(padding_side),
            truncation_side: side("truncation_side")?.unwrap_or(defaults.truncation_side),
            clean_up_tokenization_spaces: reader
                .get("clean_up_tokenization_spaces", "true or false", Value::as_bool)?
                .unwrap_or(defaults.clean_up_tokenization_spaces),
            model_input_names: names.unwrap_or(defaults.model_input_names),
        })
    }
}

/// A configuration file's object, for errors that name the file.
struct Reader<'a> {
    config: &'a Map<String, Value>,
    path: &'a Path,
}

impl Reader<'_> {
    /// What `read` makes of a key's value; none where it is missing or null.
    fn get<T>(
        &self,
        key: &'static str,
        expected: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.config.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
        let malformed = || Error::Config { path: self.path.to_owned(), key, value: value.to_string(), expected };
        read(value).map(Some).ok_or_else(malformed)
    }

    /// A length; `u64::MAX` for one that is no limit.
    fn limit(&self, key: &'static str) -> Result<Option<u64>, Error> {
        let no_limit = |value: &Value| value.as_f64().filter(|&length| length > LARGEST).map(|_| u64::MAX);
        self.get(key, "a number of tokens", |value| value.as_u64().or_else(|| no_limit(value)))
    }
}
