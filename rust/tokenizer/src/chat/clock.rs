//! The time of day, formatted as Python formats it.

use jiff::Zoned;
use minijinja::{Error, ErrorKind};

/// What Python's `datetime.now().strftime(format)` gives, for templates that print the date.
pub(crate) fn strftime_now(format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, &Zoned::now())
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {error}")))
}
