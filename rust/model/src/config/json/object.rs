//! Typed look-ups in config.json.

use serde_json::Value;

use crate::config::settings::check_cap;
use crate::error::{LoadError, Result};

/// A JSON object with typed look-ups. Those that return an option give `None` where the key is missing or null; an
/// error names the key.
#[derive(Clone, Copy)]
pub(crate) struct Object<'a>(pub(crate) &'a Value);

impl<'a> Object<'a> {
    /// The value of `key`; null counts as missing.
    pub(crate) fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    /// Every key with its value; null counts as missing.
    pub(crate) fn pairs(self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let pairs = self.0.as_object().into_iter().flatten();
        pairs.filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.as_str(), value))
    }

    pub(super) fn opt<T>(self, key: &str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let read = |v| read(v).ok_or_else(|| LoadError::Config(format!("{key} must be {kind}, got {v}")));
        self.get(key).map(read).transpose()
    }

    /// Whether there is such a key, be its value null.
    pub(crate) fn has(self, key: &str) -> bool {
        self.0.get(key).is_some()
    }

    pub(crate) fn object(self, key: &str) -> Result<Option<Object<'a>>> {
        self.opt(key, "an object", |v| v.is_object().then_some(Object(v)))
    }

    pub(crate) fn list(self, key: &str) -> Result<Option<&'a [Value]>> {
        self.opt(key, "a list", |v| v.as_array().map(Vec::as_slice))
    }

    pub(crate) fn opt_usize(self, key: &str) -> Result<Option<usize>> {
        self.opt(key, "a non-negative integer", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    pub(crate) fn usize(self, key: &str) -> Result<usize> {
        self.opt_usize(key)?.ok_or_else(|| missing(key))
    }

    pub(crate) fn f64(self, key: &str) -> Result<Option<f64>> {
        self.opt(key, "a number", Value::as_f64)
    }

    /// The bound of scores or of logits under `key`.
    pub(crate) fn soft_cap(self, key: &str) -> Result<Option<f32>> {
        self.f64(key)?.map(|cap| check_cap(key, cap)).transpose()
    }

    pub(crate) fn bool(self, key: &str, default: bool) -> Result<bool> {
        Ok(self.opt(key, "a boolean", Value::as_bool)?.unwrap_or(default))
    }

    pub(crate) fn str(self, key: &str) -> Result<Option<&'a str>> {
        self.opt(key, "a string", Value::as_str)
    }
}

pub(super) fn missing(key: &str) -> LoadError {
    LoadError::Config(format!("{key} is missing"))
}
