//! What is done about each setting that a model's files may have, so that none is ignored in silence.
//!
//! A family lists the settings that its files may have, those of config.json and those of GGUF, beside its configuration.
//! A setting on no list may belong to a newer format, so it is noted and does not stop a model that runs.

use nanovllm_gguf::{Array, Value as GgufValue};
use serde_json::Value as Json;

use crate::error::{LoadError, Result};

/// What is done about a setting.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Treatment {
    /// The configuration is read from it.
    Read,
    /// It changes nothing of what a model computes; the list says why.
    Harmless,
    /// There is code for these values only, which are what a model without the setting has. Those of a list must all be
    /// among them, and a list or an object without elements is fine.
    Only(&'static [Literal]),
}

/// A value that a setting may have.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Literal {
    Bool(bool),
    Number(f64),
    Text(&'static str),
}

/// Settings that are treated alike.
pub(crate) type Group = (Treatment, &'static [&'static str]);

/// The settings that a family's files may have, as lists of groups, of which families may share some.
#[derive(Clone, Copy)]
pub(crate) struct Settings(pub(crate) &'static [&'static [Group]]);

impl Settings {
    /// Refuses what there is no code for, and gives the names of the settings that are on no list.
    pub(crate) fn check<'a, V: Setting + 'a>(
        self,
        settings: impl Iterator<Item = (&'a str, &'a V)>,
        prefix: &str,
    ) -> Result<Vec<String>> {
        let mut unknown = Vec::new();
        for (name, value) in settings {
            match self.treatment(name) {
                Some(Treatment::Read | Treatment::Harmless) => {}
                Some(Treatment::Only(allowed)) => {
                    if !value.all(&|literal| allowed.iter().any(|known| known.is(literal))) {
                        return Err(LoadError::Unsupported(format!(
                            "{prefix}{name} is {}; only {} is supported",
                            value.shown(),
                            allowed.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
                        )));
                    }
                }
                None => unknown.push(format!("{prefix}{name}")),
            }
        }
        Ok(unknown)
    }

    pub(crate) fn treatment(self, name: &str) -> Option<Treatment> {
        let group = self.0.iter().copied().flatten().find(|(_, names)| names.contains(&name));
        group.map(|(treatment, _)| *treatment)
    }
}

/// A value as a setting's lists see it.
pub(crate) enum Plain<'a> {
    Bool(bool),
    Number(f64),
    Text(&'a str),
    Other,
}

impl Literal {
    fn is(self, value: &Plain<'_>) -> bool {
        match (self, value) {
            (Self::Bool(known), Plain::Bool(value)) => known == *value,
            (Self::Number(known), Plain::Number(value)) => known == *value,
            (Self::Text(known), Plain::Text(value)) => known == *value,
            _ => false,
        }
    }
}

impl std::fmt::Display for Literal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text(value) => write!(f, "{value:?}"),
        }
    }
}

/// A value of a setting.
pub(crate) trait Setting {
    /// Whether `is` holds of the value, or of every element of a list.
    fn all(&self, is: &dyn Fn(&Plain<'_>) -> bool) -> bool;

    /// The value for an error, however long it is.
    fn shown(&self) -> String;
}

impl Setting for Json {
    fn all(&self, is: &dyn Fn(&Plain<'_>) -> bool) -> bool {
        match self {
            Self::Null => true, // counts as missing
            Self::Bool(value) => is(&Plain::Bool(*value)),
            Self::Number(value) => is(&value.as_f64().map_or(Plain::Other, Plain::Number)),
            Self::String(value) => is(&Plain::Text(value)),
            Self::Array(values) => values.iter().all(|value| !value.is_null() && value.all(is)),
            Self::Object(values) => values.is_empty() || is(&Plain::Other),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Array(_) => "a list".to_owned(),
            Self::Object(_) => "an object".to_owned(),
            Self::String(text) if text.len() > 80 => "a long text".to_owned(),
            value => value.to_string(),
        }
    }
}

impl Setting for GgufValue {
    fn all(&self, is: &dyn Fn(&Plain<'_>) -> bool) -> bool {
        macro_rules! numbers {
            ($values:expr) => {
                $values.iter().all(|&value| is(&Plain::Number(value as f64)))
            };
        }
        match self {
            Self::Bool(value) => is(&Plain::Bool(*value)),
            Self::F32(value) => is(&Plain::Number(f64::from(*value))),
            Self::F64(value) => is(&Plain::Number(*value)),
            Self::String(value) => is(&Plain::Text(value)),
            Self::Array(array) => match array {
                Array::Bool(values) => values.iter().all(|&value| is(&Plain::Bool(value))),
                Array::String(values) => values.iter().all(|value| is(&Plain::Text(value))),
                Array::U8(values) => numbers!(values),
                Array::I8(values) => numbers!(values),
                Array::U16(values) => numbers!(values),
                Array::I16(values) => numbers!(values),
                Array::U32(values) => numbers!(values),
                Array::I32(values) => numbers!(values),
                Array::F32(values) => numbers!(values),
                Array::U64(values) => numbers!(values),
                Array::I64(values) => numbers!(values),
                Array::F64(values) => numbers!(values),
            },
            integer => is(&integer.as_integer().map_or(Plain::Other, |value| Plain::Number(value as f64))),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::F32(value) => value.to_string(),
            Self::F64(value) => value.to_string(),
            Self::String(text) if text.len() <= 80 => format!("{text:?}"),
            Self::String(_) => "a long text".to_owned(),
            value => value.as_integer().map_or_else(|| "a list".to_owned(), |value| value.to_string()),
        }
    }
}

/// A bound of scores or of logits, which the setting `name` gives.
///
/// # Errors
/// [`LoadError::Config`] for one that is not positive.
pub(crate) fn check_cap(name: &str, cap: f64) -> Result<f32> {
    if cap.is_finite() && cap > 0.0 {
        Ok(cap as f32)
    } else {
        Err(LoadError::Config(format!("{name} must be positive, got {cap}")))
    }
}
