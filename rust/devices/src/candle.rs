//! The devices on candle. They have no options: the number of threads is the environment's `RAYON_NUM_THREADS`.

use nanovllm_candle::{CandleBackend, CandleOptions};

use crate::any::{AnyBackend, Owned};

/// The device `candle`, or the `oracle` of the other devices: `candle-f32`, which widens every weight to f32.
pub(crate) fn open(oracle: bool) -> AnyBackend<Owned> {
    AnyBackend::Candle(CandleBackend::new(CandleOptions { oracle }))
}
