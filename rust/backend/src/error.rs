//! What can go wrong on a device.

use crate::weight::DType;

/// Why a device cannot do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device has no kernel for an element type.
    #[error("{device} has no kernel for {what} of type {dtype}")]
    UnsupportedDType {
        /// The device's name.
        device: &'static str,
        /// What was to be stored in that type.
        what: &'static str,
        /// The type asked for.
        dtype: DType,
    },
    /// A size is not what it must be.
    #[error("{what}: expected {expected}, got {got}")]
    Shape {
        /// What has the size, and what it is counted in.
        what: &'static str,
        /// The size it must have.
        expected: usize,
        /// The size it has.
        got: usize,
    },
    /// There is no memory for an allocation.
    #[error("cannot allocate {bytes} bytes for {what}: {reason}")]
    OutOfMemory {
        /// What the memory was for.
        what: &'static str,
        /// The size of the allocation.
        bytes: usize,
        /// What the system says.
        reason: String,
    },
    /// An operation failed on the device.
    #[error("{device}: {reason}")]
    Device {
        /// The device's name.
        device: &'static str,
        /// What the device says.
        reason: String,
    },
    /// An option that the device or this machine cannot honour.
    #[error("{0}")]
    Option(String),
}

/// What a device gives.
pub type Result<T> = std::result::Result<T, Error>;
