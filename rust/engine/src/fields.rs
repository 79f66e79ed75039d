//! Options by name, from whoever has them.

use crate::errors::SamplingParamsError;

/// A request's options as a caller gives them: an object of Python's, the body of an HTTP request.
///
/// Each method answers the value of a field, or the default where the source has no such field.
pub trait FieldSource {
    /// Why a value cannot be read, or what it reads as is refused.
    type Error: From<SamplingParamsError>;

    /// A number.
    ///
    /// # Errors
    /// A value that is none, by the field's name; so for the others.
    fn number(&self, field: &'static str, default: f64) -> Result<f64, Self::Error>;

    /// A number of things.
    ///
    /// # Errors
    /// As [`number`](Self::number).
    fn count(&self, field: &'static str, default: usize) -> Result<usize, Self::Error>;

    /// True or false.
    ///
    /// # Errors
    /// As [`number`](Self::number).
    fn boolean(&self, field: &'static str, default: bool) -> Result<bool, Self::Error>;

    /// An integer in `0..2^64`, or nothing.
    ///
    /// # Errors
    /// As [`number`](Self::number).
    fn optional_unsigned(&self, field: &'static str, default: Option<u64>) -> Result<Option<u64>, Self::Error>;
}
