//! Options of devices as a user gives them, by name, before the device that they are meant for reads them.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::Error;

/// The value of an option, as Python gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// Python's `None`: the device decides.
    Nothing,
    /// A whole number.
    Number(u64),
    /// A text, such as the name of an instruction set.
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
    /// The option's name; devices that take the same option call it the same.
    pub name: &'static str,
    /// The value of an option that is not given.
    pub default: Given,
}

/// The options that a user gave, by name; the others have their defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<&'static str, Given>);

impl Options {
    /// Gives the option `name` a value, in place of one it was given before.
    pub fn set(&mut self, name: &'static str, value: Given) {
        self.0.insert(name, value);
    }

    /// The options that were given, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &Given)> {
        self.0.iter().map(|(&name, value)| (name, value))
    }

    /// The number that option `field` was given; `None` where it was given none.
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

    /// The text that option `field` was given; `None` where it was given none.
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
