//! The metadata of a file as a map with typed look-ups.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::error::Error;
use crate::value::{Array, Value};

/// The key-value pairs of a file, in file order.
///
/// Each look-up comes twice: `x(key)` for a key that must be there, `opt_x(key)` for one that may be missing. A value
/// of the wrong type is an error in both.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

/// Defines both forms of each look-up, from the function that converts a value that is there.
macro_rules! lookups {
    ($($(#[$doc:meta])* $name:ident, $opt:ident -> $out:ty = $convert:expr;)*) => {
        impl Metadata {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// [`Error::MissingKey`], [`Error::WrongType`] and, for integers, [`Error::OutOfRange`].
            pub fn $name(&self, key: &str) -> Result<$out, Error> {
                self.$opt(key)?.ok_or_else(|| Error::MissingKey { key: key.to_owned() })
            }

            #[doc = concat!("[`", stringify!($name), "`](Self::", stringify!($name), "), or `None` where the key is missing.")]
            ///
            /// # Errors
            /// [`Error::WrongType`] and, for integers, [`Error::OutOfRange`].
            pub fn $opt(&self, key: &str) -> Result<Option<$out>, Error> {
                self.get(key).map(|value| $convert(key, value)).transpose()
            }
        )*}
    };
}

lookups! {
    /// An integer of any type that fits.
    u64, opt_u64 -> u64 = integer;
    /// An f32, or an f64 rounded to f32.
    f32, opt_f32 -> f32 = float;
    /// A bool.
    bool, opt_bool -> bool = boolean;
    /// A string.
    str, opt_str -> &str = string;
    /// An array of strings.
    strings, opt_strings -> &[String] = strings;
    /// An array of integers of any type that fit; borrowed where it is stored as i32.
    i32s, opt_i32s -> Cow<'_, [i32]> = integers;
    /// An array of f32, or of f64 rounded to f32; borrowed where it is stored as f32.
    f32s, opt_f32s -> Cow<'_, [f32]> = floats;
}

impl Metadata {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let position = *self.index.get(key)?;
        self.entries.get(position).map(|(_, value)| value)
    }

    /// Keys and values, in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Appends a pair.
    ///
    /// # Errors
    /// [`Error::DuplicateKey`], with the map unchanged.
    pub fn insert(&mut self, key: String, value: Value) -> Result<(), Error> {
        if self.index.contains_key(&key) {
            return Err(Error::DuplicateKey { key });
        }
        self.index.insert(key.clone(), self.entries.len());
        self.entries.push((key, value));
        Ok(())
    }

    /// Sets `key`: in its place if it is there, else at the end.
    pub fn set(&mut self, key: &str, value: Value) {
        if let Some(&position) = self.index.get(key) {
            self.entries[position].1 = value;
        } else {
            self.index.insert(key.to_owned(), self.entries.len());
            self.entries.push((key.to_owned(), value));
        }
    }

    /// Takes `key` out and returns its value; the others keep their order.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let position = self.index.remove(key)?;
        let (_, value) = self.entries.remove(position);
        for later in self.index.values_mut().filter(|later| **later > position) {
            *later -= 1;
        }
        Some(value)
    }
}

fn wrong_type(key: &str, expected: &'static str, value: &Value) -> Error {
    Error::WrongType { key: key.to_owned(), expected, got: value.type_name() }
}

fn integer(key: &str, value: &Value) -> Result<u64, Error> {
    let value = value.as_integer().ok_or_else(|| wrong_type(key, "an integer", value))?;
    u64::try_from(value).map_err(|_| Error::OutOfRange { key: key.to_owned(), value, expected: "u64" })
}

fn float(key: &str, value: &Value) -> Result<f32, Error> {
    match value {
        Value::F32(v) => Ok(*v),
        Value::F64(v) => Ok(*v as f32),
        other => Err(wrong_type(key, "f32 or f64", other)),
    }
}

fn boolean(key: &str, value: &Value) -> Result<bool, Error> {
    match value {
        Value::Bool(v) => Ok(*v),
        other => Err(wrong_type(key, "bool", other)),
    }
}

fn string<'a>(key: &str, value: &'a Value) -> Result<&'a str, Error> {
    match value {
        Value::String(v) => Ok(v),
        other => Err(wrong_type(key, "string", other)),
    }
}

fn strings<'a>(key: &str, value: &'a Value) -> Result<&'a [String], Error> {
    match value {
        Value::Array(Array::String(v)) => Ok(v),
        other => Err(wrong_type(key, "array of string", other)),
    }
}

fn integers<'a>(key: &str, value: &'a Value) -> Result<Cow<'a, [i32]>, Error> {
    let owned = match value {
        Value::Array(Array::I32(v)) => return Ok(Cow::Borrowed(v)),
        Value::Array(Array::U8(v)) => fit(key, v),
        Value::Array(Array::I8(v)) => fit(key, v),
        Value::Array(Array::U16(v)) => fit(key, v),
        Value::Array(Array::I16(v)) => fit(key, v),
        Value::Array(Array::U32(v)) => fit(key, v),
        Value::Array(Array::U64(v)) => fit(key, v),
        Value::Array(Array::I64(v)) => fit(key, v),
        other => Err(wrong_type(key, "array of integers", other)),
    };
    owned.map(Cow::Owned)
}

fn fit<T: Copy + Into<i128>>(key: &str, values: &[T]) -> Result<Vec<i32>, Error> {
    let narrow = |v: &T| {
        let value: i128 = (*v).into();
        i32::try_from(value).map_err(|_| Error::OutOfRange { key: key.to_owned(), value, expected: "i32" })
    };
    values.iter().map(narrow).collect()
}

fn floats<'a>(key: &str, value: &'a Value) -> Result<Cow<'a, [f32]>, Error> {
    match value {
        Value::Array(Array::F32(v)) => Ok(Cow::Borrowed(v)),
        Value::Array(Array::F64(v)) => Ok(Cow::Owned(v.iter().map(|v| *v as f32).collect())),
        other => Err(wrong_type(key, "array of f32 or f64", other)),
    }
}
