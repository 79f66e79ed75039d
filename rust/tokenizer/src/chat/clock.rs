//! The time of day, as Python writes it.

use jiff::Zoned;
use minijinja::{Error, ErrorKind};

/// The local time in `strftime` format, Python's `datetime.now().strftime(format)`.
pub(crate) fn strftime_now(format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, &Zoned::now())
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {error}")))
}
