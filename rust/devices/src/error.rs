//! What can be wrong with a device and its options.

/// Why a device cannot be had as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No device of this name in this build.
    #[error("device must be {expected}, got {got:?}")]
    UnknownDevice {
        /// Those there are.
        expected: String,
        /// The name given.
        got: String,
    },
    /// An option outside its limits, or not this device's.
    #[error("{field} must be {expected}, got {got}")]
    Option {
        /// Its name.
        field: &'static str,
        /// What would do.
        expected: String,
        /// The value given.
        got: String,
    },
    /// The device cannot be set up on this machine.
    #[error(transparent)]
    Backend(#[from] nanovllm_backend::Error),
}
