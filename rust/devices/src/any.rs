//! A backend of whichever device.

use nanovllm_backend::{Backend, Inspect, Memory};
#[cfg(feature = "candle")]
use nanovllm_candle::CandleBackend;
use nanovllm_cpu::CpuBackend;
use nanovllm_model::{CausalLm, Checkpoint, LoadError};

use crate::host_memory::host_memory;

/// How a backend is held: as it is, or behind something that shares it.
pub trait Holder {
    /// What holds a backend of type `B`.
    type Of<B: Inspect>;
}

/// Holds a backend as it is.
#[derive(Debug)]
pub struct Owned;

impl Holder for Owned {
    type Of<B: Inspect> = B;
}

/// A backend of one of the devices, held as `H` holds backends. A device is a variant here and an arm in the two macros below.
pub enum AnyBackend<H: Holder> {
    /// The CPU.
    Cpu(H::Of<CpuBackend>),
    /// candle, on whatever it was built for.
    #[cfg(feature = "candle")]
    Candle(H::Of<CandleBackend>),
}

/// Evaluates an expression with a name bound to what an [`AnyBackend`] holds, whatever its backend is. A crate that calls it has
/// this crate's features under the same names.
#[macro_export]
macro_rules! on_backend {
    ($any:expr, $held:ident => $body:expr) => {
        match $any {
            $crate::AnyBackend::Cpu($held) => $body,
            #[cfg(feature = "candle")]
            $crate::AnyBackend::Candle($held) => $body,
        }
    };
}

/// As [`on_backend`], for an expression that holds the same backend in another way: an [`AnyBackend`] again.
#[macro_export]
macro_rules! map_backend {
    ($any:expr, $held:ident => $body:expr) => {
        match $any {
            $crate::AnyBackend::Cpu($held) => $crate::AnyBackend::Cpu($body),
            #[cfg(feature = "candle")]
            $crate::AnyBackend::Candle($held) => $crate::AnyBackend::Candle($body),
        }
    };
}

impl AnyBackend<Owned> {
    /// Loads a model onto the device, for sequences of up to `max_model_len` tokens.
    ///
    /// # Errors
    /// As [`nanovllm_model::load`].
    pub fn load(self, checkpoint: &Checkpoint, max_model_len: usize) -> Result<Box<dyn CausalLm>, LoadError> {
        on_backend!(self, backend => nanovllm_model::load(backend, checkpoint, max_model_len))
    }

    /// The memory there is for weights and caches: the device's own, else the host's.
    pub fn memory(&self) -> Option<Memory> {
        on_backend!(self, backend => backend.memory()).or_else(host_memory)
    }
}
