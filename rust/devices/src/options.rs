//! Options of devices as a user gives them, before the device they are meant for makes them its own.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::Error;

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// None: the device decides.
    Nothing,
    /// A number.
    Number(u64),
    /// A name.
    Text(String),
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("None"),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// An option that a device takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionSpec {
    /// Its name, the same for all devices that take it.
    pub name: &'static str,
    /// What it is when it is not given.
    pub default: Given,
}

/// Options by name; those that are not in it have their defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<&'static str, Given>);

impl Options {
    /// Gives an option a value.
    pub fn set(&mut self, name: &'static str, value: Given) {
        self.0.insert(name, value);
    }

    /// The options that were given, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &Given)> {
        self.0.iter().map(|(&name, value)| (name, value))
    }

    /// A number, or nothing.
    ///
    /// # Errors
    /// [`Error::Option`] for a text.
    pub(crate) fn number(&self, field: &'static str) -> Result<Option<u64>, Error> {
        match self.0.get(field) {
            None | Some(Given::Nothing) => Ok(None),
            Some(&Given::Number(number)) => Ok(Some(number)),
            Some(other) => Err(Error::Option { field, expected: "an integer".to_owned(), got: other.to_string() }),
        }
    }

    /// A text, or nothing.
    ///
    /// # Errors
    /// [`Error::Option`] for a number.
    pub(crate) fn text(&self, field: &'static str) -> Result<Option<&str>, Error> {
        match self.0.get(field) {
            None | Some(Given::Nothing) => Ok(None),
            Some(Given::Text(text)) => Ok(Some(text)),
            Some(other) => Err(Error::Option { field, expected: "a name".to_owned(), got: other.to_string() }),
        }
    }
}
