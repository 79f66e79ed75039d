//! The devices on candle. They have no options: the number of threads is the environment's `RAYON_NUM_THREADS`.

use nanovllm_candle::{CandleBackend, CandleOptions};

use crate::any::{AnyBackend, Owned};
use crate::error::Error;

/// The device `candle`, or the `oracle` of the other devices: `candle-f32`, which widens every weight to f32.
///
/// # Errors
/// Those of [`CandleBackend::new`].
pub(crate) fn open(oracle: bool) -> Result<AnyBackend<Owned>, Error> {
    Ok(AnyBackend::Candle(CandleBackend::new(CandleOptions { oracle })?))
}
