//! What can go wrong on a device.

use crate::weight::DType;

/// An error of a device.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device has no kernel for this element type.
    #[error("{device} has no kernel for {what} of type {dtype}")]
    UnsupportedDType {
        /// The device's name.
        device: &'static str,
        /// What was to be stored in it.
        what: &'static str,
        /// The type asked for.
        dtype: DType,
    },
    /// Data and shape disagree.
    #[error("{what}: expected {expected}, got {got}")]
    Shape {
        /// The thing measured.
        what: &'static str,
        /// The size the shape asks for.
        expected: usize,
        /// The size found.
        got: usize,
    },
    /// An allocation failed.
    #[error("cannot allocate {bytes} bytes for {what}: {reason}")]
    OutOfMemory {
        /// What it was for.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The system's words.
        reason: String,
    },
    /// An operation failed.
    #[error("{device}: {reason}")]
    Device {
        /// The device's name.
        device: &'static str,
        /// Its own words.
        reason: String,
    },
    /// A device option the machine cannot honour.
    #[error("{0}")]
    Option(String),
}

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;
