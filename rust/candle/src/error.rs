//! candle's failures as the contract's errors.

/// The device's name in messages.
pub(crate) const NAME: &str = "candle";

/// A failure of candle, in its own words.
pub(crate) fn device_error(error: &candle_core::Error) -> nanovllm_backend::Error {
    nanovllm_backend::Error::Device { device: NAME, reason: error.to_string() }
}
