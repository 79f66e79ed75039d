//! How sampling parameters are read from a caller's own data, whatever that is.

use crate::errors::SamplingParamsError;

/// A request's options as a caller gives them: an object of Python's, say, or the body of an HTTP request.
///
/// Each method gives the value of the field of that name, or the default where the source has no such field.
pub trait FieldSource {
    /// Says that a value cannot be read, or that what it reads as is out of range.
    type Error: From<SamplingParamsError>;

    /// Reads a number.
    ///
    /// # Errors
    /// The field has a value of another type; the error says its name. This goes for the other methods too.
    fn number(&self, field: &'static str, default: f64) -> Result<f64, Self::Error>;

    /// Reads a number of things, an integer of at least `least`, or the source's word for nothing.
    ///
    /// # Errors
    /// The same as [`number`](Self::number)'s; for an integer that is no `usize` the error also says `least`.
    fn optional_count(
        &self,
        field: &'static str,
        least: usize,
        default: Option<usize>,
    ) -> Result<Option<usize>, Self::Error>;

    /// Reads true or false.
    ///
    /// # Errors
    /// The same as [`number`](Self::number)'s.
    fn boolean(&self, field: &'static str, default: bool) -> Result<bool, Self::Error>;

    /// Reads an integer in `0..2^64`, or the source's word for nothing, as which -1 counts too.
    ///
    /// # Errors
    /// The same as [`number`](Self::number)'s.
    fn optional_unsigned(&self, field: &'static str, default: Option<u64>) -> Result<Option<u64>, Self::Error>;

    /// Reads an integer in `-2^63..2^63`, or the source's word for nothing.
    ///
    /// # Errors
    /// The same as [`number`](Self::number)'s.
    fn optional_integer(&self, field: &'static str, default: Option<i64>) -> Result<Option<i64>, Self::Error>;

    /// Reads a list of token ids, or the source's word for nothing.
    ///
    /// # Errors
    /// The same as [`number`](Self::number)'s.
    fn token_ids(&self, field: &'static str) -> Result<Option<Vec<u32>>, Self::Error>;

    /// Reads numbers by token ids, or the source's word for nothing.
    ///
    /// # Errors
    /// The same as [`number`](Self::number)'s.
    fn token_numbers(&self, field: &'static str) -> Result<Option<Vec<(u32, f32)>>, Self::Error>;

    /// Reads a list of texts, one text as a list of one, or the source's word for nothing.
    ///
    /// # Errors
    /// The same as [`number`](Self::number)'s.
    fn texts(&self, field: &'static str) -> Result<Option<Vec<String>>, Self::Error>;

    /// Reads true or false, or the source's word for nothing.
    ///
    /// # Errors
    /// The same as [`number`](Self::number)'s.
    fn optional_boolean(&self, field: &'static str) -> Result<Option<bool>, Self::Error>;
}
