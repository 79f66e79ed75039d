//! What candle's failures become.

/// The device's name in messages.
pub(crate) const NAME: &str = "candle";

/// What candle says of a failure.
pub(crate) fn device_error(error: &candle_core::Error) -> nanovllm_backend::Error {
    nanovllm_backend::Error::Device { device: NAME, reason: error.to_string() }
}
