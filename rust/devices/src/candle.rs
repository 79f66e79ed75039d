//! candle has no options: it takes its threads from `RAYON_NUM_THREADS`, and its formats choose the rest.

use nanovllm_candle::{CandleBackend, CandleOptions};

use crate::any::{AnyBackend, Owned};

/// candle with its own formats, or with every weight widened to f32 as the oracle of the other devices.
pub(crate) fn open(oracle: bool) -> AnyBackend<Owned> {
    AnyBackend::Candle(CandleBackend::new(CandleOptions { oracle }))
}
