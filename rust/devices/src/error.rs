//! What can be wrong with a device's name and options.

/// Why a device cannot be had as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This build has no device of this name.
    #[error("device must be {expected}, got {got:?}")]
    UnknownDevice {
        /// The names there are.
        expected: String,
        /// The name that was given.
        got: String,
    },
    /// An option is outside its limits, or of another device.
    #[error("{field} must be {expected}, got {got}")]
    Option {
        /// The option's name.
        field: &'static str,
        /// What it may be.
        expected: String,
        /// The value that was given.
        got: String,
    },
    /// The device cannot be set up on this machine.
    #[error(transparent)]
    Backend(#[from] nanovllm_backend::Error),
}
